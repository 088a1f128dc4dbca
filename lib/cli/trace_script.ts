import { traceShapes } from './trace_shapes.js';

/**
 * Draws the picture of a trace's page (trace_page.ts) from the numbers in it, and answers the pointer. Only what is in sight is drawn, so
 * a long text costs no more than a short one.
 */
export const traceScript = String.raw`'use strict';
${traceShapes}
(() => {
	const { steps, prompt, labels, kinds, pictures } = JSON.parse(document.getElementById('trace').textContent);
	const [canvas, area, scroller, tip] = ['picture', 'area', 'scroller', 'tip'].map((id) => document.getElementById(id));
	const context = canvas.getContext('2d');
	const end = (picture, p) => endOf(picture, p, steps);
	const onAxis = (p) => short(/^␣+$/.test(labels[p]) ? labels[p] : labels[p].replace(/^␣/, ''));
	let shown = pictures; // those that the picture is of, together
	let columns = columnsOf(shown, steps);
	let cell = 1;
	let wide = false; // whether there is room for a label at every cell
	let left = 0; // room for labels
	let top = 0;
	let here = { p: -1, t: -1 };
	const largest = 4096; // what every browser makes a canvas of
	let whole = null; // the picture at a pixel a cell, to be made smaller
	context.font = '700 ' + font(11);
	const widest = 20 + Math.max(...labels.map((_, p) => context.measureText(onAxis(p)).width));

	function fit() {
		const room = scroller.clientWidth - 8;
		const labelled = (room - widest) / steps;
		setCell(labelled >= 11 ? Math.min(18, labelled) : (room - 48) / steps);
	}

	function setCell(size) {
		cell = size >= 5 ? Math.floor(size) : size >= 1 ? size : steps > largest ? 1 : Math.max(0.4, size);
		wide = cell >= 11;
		left = wide ? widest : 48;
		top = wide ? widest : 26;
		area.style.width = left + steps * cell + 8 + 'px';
		area.style.height = top + steps * cell + 8 + 'px';
		draw();
	}

	function draw() {
		const width = Math.min(scroller.clientWidth, left + steps * cell + 8);
		const height = Math.min(Math.round(innerHeight * 0.82) - 2, top + Math.ceil(steps * cell) + 8);
		const ratio = devicePixelRatio || 1;
		if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
			canvas.width = Math.round(width * ratio);
			canvas.height = Math.round(height * ratio);
			canvas.style.width = width + 'px';
			canvas.style.height = height + 'px';
		}
		context.setTransform(ratio, 0, 0, ratio, 0, 0);
		context.fillStyle = colour('paper');
		context.fillRect(0, 0, width, height);
		const [dx, dy] = [left - scroller.scrollLeft, top - scroller.scrollTop];
		const firstP = Math.max(0, Math.floor((left - dx) / cell));
		const lastP = Math.min(steps - 1, Math.floor((width - dx) / cell));
		const firstT = Math.max(0, Math.floor((top - dy) / cell));
		const lastT = Math.min(steps - 1, Math.floor((height - dy) / cell));
		const gap = cell >= 7 ? 1 : 0;
		context.save();
		context.beginPath();
		context.rect(left, top, width - left, height - top);
		context.clip();
		const bar = (p, from, to) => {
			const [a, b] = [Math.max(from, firstT), Math.min(to, lastT + 1)];
			const [x, y] = [Math.round(dx + p * cell), Math.round(dy + a * cell)];
			if (b > a) context.fillRect(x, y, Math.round(dx + (p + 1) * cell) - x - gap, Math.round(dy + b * cell) - y - gap);
		};
		if (cell < 1) {
			whole ||= paint(columns, prompt);
			context.imageSmoothingQuality = 'high';
			context.drawImage(whole, dx, dy, steps * cell, steps * cell);
		} else {
			context.fillStyle = colour('gone');
			for (let p = firstP; p <= lastP; p++) bar(p, p, steps);
			for (const [name, from, to] of [['prompt', 0, prompt], ['made', prompt, steps]]) {
				const tone = colour(name);
				context.fillStyle = tone;
				for (let p = Math.max(from, firstP); p < Math.min(to, lastP + 1); p++) {
					for (const [a, b, share] of columns[p]) {
						context.globalAlpha = strength(share);
						bar(p, a, b);
					}
				}
				context.globalAlpha = 1;
			}
		}
		if (gap) {
			context.fillStyle = colour('paper');
			for (let t = firstT; t <= lastT; t++) context.fillRect(left, dy + (t + 1) * cell - gap, width, gap);
		}
		if (prompt > 0 && prompt < steps) {
			context.strokeStyle = colour('soft');
			context.setLineDash([4, 4]);
			context.beginPath();
			context.moveTo(left, dy + prompt * cell - gap / 2);
			context.lineTo(Math.min(width, dx + (prompt + 1) * cell), dy + prompt * cell - gap / 2);
			context.stroke();
			context.setLineDash([]);
		}
		if (here.p >= 0 || here.t >= 0) {
			context.strokeStyle = colour('ink');
			context.lineWidth = 1;
			const thick = Math.max(cell, 2);
			if (here.p >= 0) context.strokeRect(dx + here.p * cell - 1, dy + here.p * cell - 1, thick + 1 - gap, (steps - here.p) * cell + 2 - gap);
			if (here.t >= 0) context.strokeRect(dx - 1, dy + here.t * cell - 1, (here.t + 1) * cell + 2 - gap, thick + 1 - gap);
		}
		context.restore();
		axes(dx, dy, firstP, lastP, firstT, lastT, width, height);
	}

	function axes(dx, dy, firstP, lastP, firstT, lastT, width, height) {
		const across = (p, text, strong) => {
			context.save();
			context.translate(dx + (p + 0.5) * cell, top - 6);
			if (wide) context.rotate(-Math.PI / 2);
			label(text, strong, wide ? 'left' : 'center', 0, wide ? 0 : -4);
			context.restore();
		};
		const down = (t, text, strong) => label(text, strong, 'right', left - 8, dy + (t + 0.5) * cell);
		const each = wide ? 1 : nice(46 / cell);
		context.save();
		context.beginPath();
		context.rect(left - 20, 0, width, top);
		context.clip();
		for (let p = Math.ceil(firstP / each) * each; p <= lastP; p += each) across(p, wide ? onAxis(p) : String(p), p === here.p);
		if (!wide && here.p >= 0) across(here.p, onAxis(here.p), true);
		context.restore();
		context.save();
		context.beginPath();
		context.rect(0, top - 6, left, height);
		context.clip();
		const every = wide ? 1 : nice(28 / cell);
		for (let t = Math.ceil(firstT / every) * every; t <= lastT; t += every) down(t, wide ? onAxis(t) : String(t), t === here.t);
		if (!wide && here.t >= 0) down(here.t, short(onAxis(here.t)).slice(0, 6), true);
		context.restore();
	}

	function label(text, strong, align, x, y) {
		context.font = (strong ? '700 ' : '') + font(11);
		context.textAlign = align;
		context.textBaseline = 'middle';
		if (strong && !wide) {
			// over the numbers that are there
			const width = context.measureText(text).width;
			context.fillStyle = colour('paper');
			context.fillRect(align === 'left' ? x - 2 : align === 'right' ? x - width - 2 : x - width / 2 - 3, y - 8, width + 6, 16);
		}
		context.fillStyle = colour(strong ? 'ink' : 'soft');
		context.fillText(text, x, y);
	}

	function told(p, t) {
		const lines = ['“' + labels[p] + '”: position ' + p + ', ' + kinds[p] + (p < prompt ? ', of the prompt' : ', generated')];
		const ends = shown.map((picture) => end(picture, p));
		const kept = ends.filter((at) => at === steps).length;
		if (shown.length === 1) {
			if (kept) lines.push('held to the end');
			else if (ends[0] === p) lines.push('dropped as soon as it came');
			else lines.push('dropped at step ' + ends[0] + ', when “' + labels[ends[0]] + '” came, after ' + (ends[0] - p) + ' steps');
		} else {
			lines.push('held to the end by ' + kept + ' of ' + shown.length);
			const gone = ends.filter((at) => at < steps);
			if (gone.length) lines.push('dropped at steps ' + Math.min(...gone) + ' to ' + Math.max(...gone));
		}
		if (t >= p) {
			const now = ends.filter((at) => at > t).length;
			const how = shown.length === 1 ? (now ? 'held' : 'gone') : 'held by ' + now + ' of ' + shown.length;
			lines.push('after step ' + t + ' (“' + labels[t] + '”): ' + how);
		}
		return lines.join('\n');
	}

	function point(p, t, x, y) {
		for (const mark of document.querySelectorAll('#text .here')) mark.classList.remove('here');
		const inside = p >= 0 && p < steps && t < steps;
		here = inside ? { p, t } : { p: -1, t: -1 };
		tip.hidden = !inside;
		if (inside) {
			tip.textContent = told(p, t);
			const mark = document.querySelector('#text [data-p="' + p + '"]');
			if (mark) mark.classList.add('here');
			const { width, height } = tip.getBoundingClientRect();
			tip.style.left = Math.max(4, Math.min(x + 16, innerWidth - width - 8)) + 'px';
			tip.style.top = (y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18) + 'px';
		}
		draw();
	}

	canvas.addEventListener('pointermove', (event) => {
		const box = canvas.getBoundingClientRect();
		const [x, y] = [event.clientX - box.left, event.clientY - box.top];
		const p = Math.floor((x - left + scroller.scrollLeft) / cell);
		const t = Math.floor((y - top + scroller.scrollTop) / cell);
		if (y < top && x > left) point(p, -1, event.clientX, event.clientY);
		else if (x < left && y > top) point(t, t, event.clientX, event.clientY);
		else point(x < left || y < top ? -1 : p, t, event.clientX, event.clientY);
	});
	const text = document.getElementById('text');
	text.addEventListener('pointermove', (event) => {
		const token = event.target.closest('[data-p]');
		point(token ? Number(token.dataset.p) : -1, -1, event.clientX, event.clientY);
	});
	for (const element of [canvas, text]) element.addEventListener('pointerleave', () => point(-1, -1, 0, 0));

	/** A small picture to choose by. */
	function small(name, list) {
		const button = document.createElement('button');
		button.type = 'button';
		const picture = document.createElement('canvas');
		picture.width = picture.height = 152;
		button.append(picture, name);
		const repaint = () => {
			const brush = picture.getContext('2d');
			brush.clearRect(0, 0, picture.width, picture.height);
			brush.imageSmoothingEnabled = steps > picture.width;
			brush.imageSmoothingQuality = 'high';
			if (steps <= largest) brush.drawImage(paint(columnsOf(list, steps), prompt), 0, 0, picture.width, picture.height);
		};
		return { button, repaint };
	}

	const painters = [];
	function strip(nav, choices, chosen) {
		nav.replaceChildren();
		for (const { name, list } of choices) {
			const { button, repaint } = small(name, list);
			button.setAttribute('aria-pressed', 'false');
			button.addEventListener('click', () => {
				for (const other of nav.children) other.setAttribute('aria-pressed', String(other === button));
				show(list);
				if (chosen) chosen(list);
			});
			repaint();
			painters.push({ button, repaint });
			nav.append(button);
		}
		if (nav.firstChild) nav.firstChild.setAttribute('aria-pressed', 'true');
	}

	function show(list) {
		shown = list;
		columns = columnsOf(list, steps);
		whole = null;
		document.getElementById('shade').hidden = list.length === 1;
		draw();
	}

	const [layerBar, headBar] = [document.getElementById('layers'), document.getElementById('heads')];
	const layers = [...new Set(pictures.map(({ layer }) => layer))];
	const byLayer = layers.map((layer) => ({ name: 'layer ' + layer, list: pictures.filter((picture) => picture.layer === layer) }));
	strip(layerBar, layers.length > 1 ? [{ name: 'all layers', list: pictures }, ...byLayer] : byLayer, headsOf);
	function headsOf(list) {
		const own = list.length > 1 && new Set(list.map(({ layer }) => layer)).size === 1;
		headBar.hidden = !own;
		if (own) strip(headBar, [{ name: 'all heads', list }, ...list.map((picture) => ({ name: 'head ' + picture.kvHead, list: [picture] }))]);
		else headBar.replaceChildren();
	}
	if (layers.length === 1) headsOf(pictures);

	document.getElementById('in').addEventListener('click', () => zoom(1.5));
	document.getElementById('out').addEventListener('click', () => zoom(1 / 1.5));
	document.getElementById('fit').addEventListener('click', fit);
	/** Around the middle of what is in sight. */
	function zoom(factor) {
		const place = (scroll, room, size) => (scroll + size / 2 - room) / cell;
		const [p, t] = [place(scroller.scrollLeft, left, scroller.clientWidth), place(scroller.scrollTop, top, scroller.clientHeight)];
		setCell(Math.min(24, factor > 1 && cell >= 1 ? Math.max(cell + 1, cell * factor) : cell * factor));
		scroller.scrollLeft = p * cell + left - scroller.clientWidth / 2;
		scroller.scrollTop = t * cell + top - scroller.clientHeight / 2;
		draw();
	}
	scroller.addEventListener('scroll', draw);
	addEventListener('resize', draw);
	matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
		for (const { button, repaint } of painters) if (button.isConnected) repaint();
		whole = null;
		draw();
	});
	show(shown);
	fit();
})();`;
