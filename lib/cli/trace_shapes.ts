/** What the script of a trace's page is built from (trace_script.ts): no state, only shapes and colours. */
export const traceShapes = `
const colour = (name, alpha = 1) => 'rgb(' + getComputedStyle(document.documentElement).getPropertyValue('--' + name) + ' / ' + alpha + ')';
const font = (size) => size + 'px system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif';
const short = (label) => (label.length > 14 ? label.slice(0, 13) + '…' : label);
const endOf = ({ lived }, p, steps) => (lived[p] < 0 ? steps : p + lived[p]);
const strength = (share) => (share === 1 ? 1 : 0.12 + 0.8 * share);

/** For each position the stretches of steps over which the same share of the pictures hold it: [from, to, share]. */
function columnsOf(list, steps) {
	return Array.from({ length: steps }, (_, p) => {
		const ends = list.map((picture) => endOf(picture, p, steps)).sort((a, b) => a - b);
		const stretches = [];
		for (let i = 0, from = p; i < ends.length; i++) {
			if (ends[i] > from) stretches.push([from, ends[i], (ends.length - i) / ends.length]);
			from = Math.max(from, ends[i]);
		}
		return stretches;
	});
}

/** The picture at a pixel a cell: what is drawn smaller than that would fade at the edges of its bars. */
function paint(columns, prompt) {
	const steps = columns.length;
	const picture = document.createElement('canvas');
	picture.width = picture.height = steps;
	const brush = picture.getContext('2d');
	brush.fillStyle = colour('gone');
	for (let p = 0; p < steps; p++) brush.fillRect(p, p, 1, steps - p);
	for (const [p, stretches] of columns.entries()) {
		brush.fillStyle = colour(p < prompt ? 'prompt' : 'made');
		for (const [from, to, share] of stretches) {
			brush.globalAlpha = strength(share);
			brush.fillRect(p, from, 1, to - from);
		}
		brush.globalAlpha = 1;
	}
	return picture;
}

/** 1, 2 or 5 times a power of ten, at least this much. */
function nice(least) {
	const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
	return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least) || 1;
}
`;
