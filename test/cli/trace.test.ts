import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { tova } from '../../lib/cache/index.js';
import { pageTokens } from '../../lib/cli/trace_file.js';
import { type PageToken, tracePage } from '../../lib/cli/trace_page.js';
import { Llama } from '../../lib/models/llama.js';
import { type Held, Trace } from '../../lib/models/trace.js';
import { temporary } from '../files.js';
import { ByteTokenizer } from '../generate/fakes.js';
import { names, pathOf } from '../models/llama/models.js';
import { Page } from './page.js';
import { oplus } from './run.js';

const word = (text: string, kind: PageToken['kind'] = 'word'): PageToken => ({ text, label: text, kind });

/** Six tokens, a prompt of two, two layers; the last token was never fed. */
const tokens = [word('', 'special'), word(' one'), word(' two'), word('.', 'punctuation'), word(' four'), word(' five'), word(' six')];
tokens[0] = { text: '', label: '<s>', kind: 'special' };
const held: readonly Held[] = [
	{ layer: 0, kvHead: null, left: Int32Array.of(6, 3, 2, 6, 5, 6) },
	{ layer: 1, kvHead: null, left: Int32Array.of(4, 6, 6, 4, 6, 5) },
];
const small = { title: 'Title', facts: [['model', 'm']] as const, tokens, prompt: 2, held };
/** The widest cell: there is room for it here. */
const cell = 18;

describe('the picture', () => {
	test('of one layer: a cell is filled while the state is held', () => {
		const page = new Page(tracePage(small));
		expect(page.choices('layers')).toEqual(['all layers', 'layer 0', 'layer 1']);
		for (const [layer, { left }] of held.entries()) {
			page.choose('layers', `layer ${layer}`);
			for (let p = 0; p < 6; p++) {
				for (let t = 0; t < 6; t++) {
					const colour = t < p ? 'paper' : t >= left[p]! ? 'gone' : p < 2 ? 'prompt' : 'made';
					expect(page.at(p, t, cell), `layer ${layer}, position ${p}, step ${t}`).toEqual({ colour, alpha: 1 });
				}
			}
		}
	});

	test('of all: the more hold it, the stronger', () => {
		const page = new Page(tracePage(small));
		for (let p = 0; p < 6; p++) {
			for (let t = p; t < 6; t++) {
				const count = held.filter(({ left }) => t < left[p]!).length;
				const { colour, alpha } = page.at(p, t, cell);
				if (count === 0) expect(colour).toBe('gone');
				else expect([colour, alpha]).toEqual([p < 2 ? 'prompt' : 'made', count === 2 ? 1 : 0.52]);
			}
		}
	});

	test('heads that keep their own have pictures of their own', () => {
		const own = held.map((each, kvHead) => ({ ...each, layer: 0, kvHead }));
		const page = new Page(tracePage({ ...small, held: [...own, ...own.map((each) => ({ ...each, layer: 1 }))] }));
		expect(page.choices('heads')).toEqual([]);
		page.choose('layers', 'layer 1');
		expect(page.choices('heads')).toEqual(['all heads', 'head 0', 'head 1']);
		page.choose('heads', 'head 1');
		expect(page.at(0, 4, cell).colour).toBe('gone');
		page.choose('heads', 'head 0');
		expect(page.at(0, 4, cell).colour).toBe('prompt');
		page.choose('layers', 'all layers');
		expect(page.element('heads').hidden).toBe(true);
		expect(new Page(tracePage({ ...small, held: own })).choices('heads')).toEqual(['all heads', 'head 0', 'head 1']);
	});

	test('what the pointer is at', () => {
		const page = new Page(tracePage(small));
		page.choose('layers', 'layer 0');
		expect(page.point(1, 2, cell)).toBe(
			'“␣one”: position 1, word, of the prompt\ndropped at step 3, when “.” came, after 2 steps\nafter step 2 (“␣two”): held',
		);
		expect(page.point(1, 3, cell)).toContain('after step 3 (“.”): gone');
		expect(page.point(2, 4, cell)).toContain('dropped as soon as it came');
		expect(page.point(3, 5, cell)).toContain('held to the end');
		page.choose('layers', 'all layers');
		expect(page.point(0, 4, cell)).toBe(
			'“<s>”: position 0, special, of the prompt\nheld to the end by 1 of 2\ndropped at steps 4 to 4\nafter step 4 (“␣four”): held by 1 of 2',
		);
		expect(page.point(7, 7, cell)).toBe('');
	});

	test('a long one is drawn as a whole', () => {
		const steps = 1500;
		const many = Array.from({ length: steps }, (_, p) => word(` ${p}`));
		const left = Int32Array.from(many, (_, p) => Math.min(steps, p + 100));
		const html = tracePage({ ...small, tokens: many, held: [{ layer: 0, kvHead: null, left }] });
		expect(() => new Page(html)).not.toThrow();
		expect(html.length).toBeLessThan(150 * steps);
	});
});

test('the text: how many layers hold each token at the end, and what was never fed', () => {
	const html = tracePage(small);
	const spans = [...html.matchAll(/<span class="(prompt|made)"(?: data-p="(\d+)" style="--share:([\d.]+)")?>(.*?)<\/span>/g)];
	expect(spans.map(([, origin, p, share, text]) => [origin, p, share, text])).toEqual([
		['prompt', '0', '0.5', '<small>&lt;s&gt;</small>'],
		['prompt', '1', '0.5', ' one'],
		['made', '2', '0.5', ' two'],
		['made', '3', '0.5', '.'],
		['made', '4', '0.5', ' four'],
		['made', '5', '0.5', ' five'],
		['made', undefined, undefined, ' six'],
	]);
});

test('the table: how long each kind was held', () => {
	const cells = [...tracePage(small).matchAll(/<tr>(.*?)<\/tr>/g)].map(([, row]) =>
		[...row!.matchAll(/<t[hd]>(.*?)<\/t[hd]>/g)].map(([, text]) => text),
	);
	// special: 6 + 4 of 12 steps; punctuation: 3 + 1 of 6; words: (2 + 5) + (0 + 4) + (1 + 2) + (1 + 0) of 10 + 8 + 4 + 2
	expect(cells.slice(1)).toEqual([
		['special', '1', '83 %', '4', '50 %'],
		['punctuation', '1', '67 %', '1', '50 %'],
		['word', '4', '63 %', '1', '50 %'],
	]);
});

test('nothing that a token says is part of the page', () => {
	const evil = ['</script><script>alert(1)</script>', '<b>&"\'', '<!--', '$&', '\0\x1b[31m', '\u2028', '&lt;'];
	const html = tracePage({
		title: '<i>title</i>',
		facts: [['<u>', '</dl><u>']],
		tokens: evil.map((text) => ({ text, label: text, kind: 'word' })),
		prompt: 1,
		held: [{ layer: 0, kvHead: null, left: new Int32Array(evil.length).fill(evil.length) }],
	});
	expect(html.match(/<script/g)).toHaveLength(2);
	expect(html.match(/<\/script/g)).toHaveLength(2);
	for (const tag of ['<i>t', '<u>', '<b>', '<!--', 'alert(1)</']) expect(html).not.toContain(tag);
	expect(html).toContain('&amp;lt;');
	expect(html).not.toMatch(/[^\P{Cc}\n\t]/u);
	const page = new Page(html);
	expect(page.point(0, 0, cell)).toContain('“</script><script>alert(1)</script>”');
});

test('nothing is fetched', () => {
	expect(tracePage(small)).not.toMatch(/https?:|src=|href=|url\(|import /);
});

test('kinds of tokens, and characters that are spread over several', () => {
	const tokenizer = new ByteTokenizer([' the', 'se', ' 12', '\n', '  ', ', and', ' é']);
	const ids = [256, 258, 259, 260, 44, 261, 262, 263, 264, 0xf0, 0x9f, 0x98, 0x80, 0x61, 0xff];
	expect(pageTokens(tokenizer, [...ids, 999]).map(({ kind, text, label }) => [kind, text, label])).toEqual([
		['special', '', '<256>'],
		['word', 'the', 'the'],
		['rest of a word', 'se', 'se'],
		['number', ' 12', ' 12'],
		['punctuation', ',', ','],
		['line break', '\n', '\n'],
		['space', '  ', '  '],
		['punctuation', ', and', ', and'],
		['word', ' é', ' é'],
		['part of a character', '', '<F0>'],
		['part of a character', '', '<9F>'],
		['part of a character', '', '<98>'],
		['part of a character', '😀', '<80>'],
		['word', 'a', 'a'],
		['part of a character', '\ufffd', '<FF>'],
		['special', '', '<999>'],
	]);
});

test.each(names)('%s: the page that `oplus generate --trace` writes is of the text that it generates', async (name) => {
	const place = await pathOf(name);
	const file = path.join(await temporary(), 'new', 'trace.html');
	const args = [
		'generate',
		'--model',
		place,
		'--prompt',
		'Once upon a time',
		'--cache',
		'tova',
		'--states',
		'8',
		'--max-tokens',
		'30',
		'--json',
	];
	const { stdout, code, stderr } = await oplus([...args, '--ignore-eos', '--trace', file]);
	expect(code, stderr).toBe(0);
	const found = JSON.parse(stdout) as { ids: number[]; promptTokens: number; trace: string };
	expect(found.trace).toBe(file);
	const html = await fs.readFile(file, 'utf8');
	const data = JSON.parse(/<script type="application\/json" id="trace">(.*?)<\/script>/s.exec(html)![1]!);

	using model = await Llama.load(place);
	const ids = [...model.tokenizer.encode('Once upon a time'), ...found.ids];
	using session = model.session({ cache: tova(8) });
	const trace = new Trace(session, tova(8));
	for (const id of ids.slice(0, -1)) {
		await session.append([id]);
		await trace.look();
	}
	expect(data).toMatchObject({ steps: ids.length - 1, prompt: found.promptTokens });
	expect(data.pictures).toEqual(
		trace.held().map(({ left, ...of }) => ({ ...of, lived: Array.from(left, (end, p) => (end === ids.length - 1 ? -1 : end - p)) })),
	);
	expect(html.match(/data-p=/g)).toHaveLength(ids.length - 1 + 1); // and once in the script
});
