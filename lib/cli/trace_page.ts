import type { Held } from '../models/trace.js';
import { safe } from '../report.js';
import { traceScript } from './trace_script.js';
import { traceStyle } from './trace_style.js';

/** Kinds of tokens, in the order of the table. */
export const kinds = ['special', 'punctuation', 'line break', 'space', 'number', 'word', 'rest of a word', 'part of a character'] as const;

export interface PageToken {
	/** What it adds to the text; '' for a token that stands for no text, or whose character is not whole yet. */
	readonly text: string;
	/** What it is called where it stands alone. */
	readonly label: string;
	readonly kind: (typeof kinds)[number];
}

export interface TracePage {
	readonly title: string;
	/** What the run was: names and values. */
	readonly facts: readonly (readonly [string, string])[];
	/** Every token of the sequence; those behind the last step were never fed. */
	readonly tokens: readonly PageToken[];
	/** How many of them are the prompt. */
	readonly prompt: number;
	/** By layer and head. */
	readonly held: readonly Held[];
}

/** A page that is one file and fetches nothing: which states were held, step by step. */
export function tracePage(page: TracePage): string {
	const { title, facts, tokens, prompt, held } = page;
	const steps = held[0]?.left.length ?? 0;
	const data = {
		steps,
		prompt,
		labels: tokens.slice(0, steps).map(({ label }) => visible(label)),
		kinds: tokens.slice(0, steps).map(({ kind }) => kind),
		// Steps that each position was held for; −1: to the end.
		pictures: held.map(({ layer, kvHead, left }) => ({
			layer,
			kvHead,
			lived: Array.from(left, (end, p) => (end === steps ? -1 : end - p)),
		})),
	};
	const own = held.some(({ kvHead }) => kvHead !== null);
	const sets = own ? 'layers and key-value heads' : 'layers';
	return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${safe(title)}</title>
<style>${traceStyle}</style>
</head>
<body>
<h1>${safe(title)}</h1>
<p class="lead">A token a column, a step a row. The bar under a token is as long as its state was held: it begins in the row where the token came, and ends where the state was dropped to make room for another.</p>
<dl class="facts">${facts.map(([name, value]) => `<div><dt>${safe(name)}</dt><dd>${safe(value)}</dd></div>`).join('')}</dl>
<nav id="layers" aria-label="layer"></nav>
<nav id="heads" aria-label="key-value head" hidden></nav>
<div class="bar">
<p class="legend"><span><i class="prompt"></i>held, of the prompt</span><span><i class="made"></i>held, generated</span><span><i class="gone"></i>dropped</span><span id="shade">stronger: held by more ${sets}</span></p>
<p class="zoom"><button type="button" id="out" aria-label="smaller">−</button><button type="button" id="fit">fit</button><button type="button" id="in" aria-label="larger">+</button></p>
</div>
<div id="scroller" tabindex="0"><div id="area"><canvas id="picture" role="img" aria-label="which states are held, step by step"></canvas></div></div>
<noscript><p>The picture is drawn by a script, which is turned off here.</p></noscript>
<h2>What is left of the text at the end</h2>
<p>The stronger the colour, the more ${sets} still hold the token after the last step; without colour it is forgotten. Point at a token to find it in the picture.</p>
<p id="text">${tokens.map((token, p) => span(token, p, prompt, steps, held)).join('')}</p>
<h2>How long tokens are held</h2>
<p>Over all ${sets}. A token that came late could not be held for long: the third column compares with the steps that there were from its coming to the end.</p>
${table(tokens, steps, held)}
<div id="tip" role="status" hidden></div>
<script type="application/json" id="trace">${JSON.stringify(data).replaceAll('<', '\\u003c')}</script>
<script>${traceScript}</script>
</body>
</html>
`;
}

/** Characters that cannot be seen, as others that can. */
function visible(label: string): string {
	return withoutControls(label.replaceAll('\n', '↵').replaceAll(' ', '␣'));
}

/** Control characters are no characters of HTML. */
function withoutControls(text: string): string {
	return text.replace(/\p{Cc}/gu, (control) => {
		const code = control.charCodeAt(0);
		return code < 0x20 ? String.fromCharCode(0x2400 + code) : '\u2421';
	});
}

function span({ text, label }: PageToken, p: number, prompt: number, steps: number, held: readonly Held[]): string {
	const origin = p < prompt ? 'prompt' : 'made';
	const fed = p < steps;
	const share = fed ? held.filter(({ left }) => left[p] === steps).length / held.length : 0;
	const shown = text === '' ? `<small>${safe(visible(label))}</small>` : safe(text.replace(/[^\n\t]+/g, withoutControls));
	return `<span class="${origin}"${fed ? ` data-p="${p}" style="--share:${+share.toFixed(3)}"` : ''}>${shown}</span>`;
}

function table(tokens: readonly PageToken[], steps: number, held: readonly Held[]): string {
	const rows = kinds.flatMap((kind) => {
		const positions = tokens.slice(0, steps).flatMap((token, p) => (token.kind === kind ? [p] : []));
		if (positions.length === 0) return [];
		let [lived, possible, atEnd] = [0, 0, 0];
		const gone: number[] = [];
		for (const p of positions) {
			for (const { left } of held) {
				lived += left[p]! - p;
				possible += steps - p;
				if (left[p] === steps) atEnd++;
				else gone.push(left[p]! - p);
			}
		}
		gone.sort((a, b) => a - b);
		const percent = (part: number, whole: number) => `${((100 * part) / whole).toFixed(0)} %`;
		const median = gone.length > 0 ? `${gone[gone.length >> 1]}` : '–';
		return [[kind, `${positions.length}`, percent(lived, possible), median, percent(atEnd, positions.length * held.length)]];
	});
	const head = ['kind', 'tokens', 'held, of the steps that there were', 'median steps until dropped', 'held at the end'];
	const row = (cells: readonly string[], tag: string) => `<tr>${cells.map((cell) => `<${tag}>${safe(cell)}</${tag}>`).join('')}</tr>`;
	return `<table>${row(head, 'th')}${rows.map((cells) => row(cells, 'td')).join('')}</table>`;
}
