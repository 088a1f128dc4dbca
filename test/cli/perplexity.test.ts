import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../lib/cache/index.js';
import { encodeFile } from '../../lib/cli/text_file.js';
import { Llama } from '../../lib/models/llama.js';
import { Random } from '../../lib/random.js';
import type { Tokenizer } from '../../lib/text/tokenizer.js';
import { file, temporary } from '../files.js';
import { llama2cBytes } from '../io/models.js';
import { made, madeSizes, madeTensors, madeTokenizer, names, pathOf, published } from '../models/llama/models.js';
import { texts } from '../text/vocabularies.js';
import { oplus } from './run.js';
import { json, refusal } from './said.js';

interface Found {
	readonly perplexity: number;
	readonly nll: number;
	readonly bitsPerByte: number;
	readonly tokens: number;
	readonly bytes: number;
	readonly states: number;
	readonly cacheBytes: number;
	readonly seconds: number;
	readonly tokensPerSecond: number;
}

let place: string;
let story: string;
let llama: Llama;
let text: string;
beforeAll(async () => {
	place = published ? await pathOf('stories260K') : await made();
	llama = await Llama.load(place);
	const whole = published
		? await fs.readFile(path.join(published, '..', 'text', 'tinystories.txt'), 'utf8')
		: 'Once upon a time, a day. '.repeat(400);
	text = `${whole.slice(0, 8000)} é😀\n`;
	story = await file('story.txt', `\ufeff${text}`); // with a byte order mark, which is no part of the text
});

const perplexity = (...args: string[]) => oplus(['perplexity', '--model', place, '--text', story, '--json', ...args]);

/** What the library makes of it. @param lists sequences, each with what stands before its text */
async function expected(policy: Policy, lists: readonly ArrayLike<number>[], options: object = {}) {
	let sum = 0;
	let count = 0;
	let bytes = 0;
	for (const list of lists) {
		using session = llama.session({ cache: policy, ...options });
		const { nll } = await session.score(list);
		for (const loss of nll.subarray(1)) sum += loss;
		count += nll.length - 1;
		bytes = Math.max(bytes, session.bytes);
	}
	return { nll: sum / count, tokens: count, bytes };
}

describe('the whole text as one sequence', () => {
	test.each<[string, string[], Policy, object]>([
		['full', [], full(), {}],
		['window', ['--states', '48'], window(48), {}],
		['window+4', ['--states', '48', '--positions', 'cache'], window(48, { sinks: 4 }), { positions: 'cache' }],
		['h2o', ['--states', '48', '--cache-type', 'f16'], h2o(48), { dtype: 'f16' }],
		['tova', ['--states', '48'], tova(48), {}],
	])('--cache %s: the losses that a session of the library gives', async (cache, more, policy, options) => {
		const found = json<Found>(await perplexity('--cache', cache, ...more));
		const right = await expected(policy, [llama.tokenizer.encode(text)], options);
		expect(found.tokens).toBe(right.tokens);
		expect(Math.abs(found.nll - right.nll)).toBeLessThan(1e-5 * right.nll);
		expect(found.perplexity).toBeCloseTo(Math.exp(found.nll), 9);
		expect(found.cacheBytes).toBe(right.bytes);
		expect(found.states).toBe(cache === 'full' ? right.tokens + 1 : 48);
		expect(found.bytes).toBe(Buffer.byteLength(text));
		expect(found.bitsPerByte).toBeCloseTo((found.nll * found.tokens) / Math.LN2 / found.bytes, 9);
		expect(found.tokensPerSecond).toBeCloseTo(found.tokens / found.seconds, 6);
	});
});

test('--context: sequences of so many tokens, each from BOS with an empty cache', async () => {
	const ids = llama.tokenizer.encode(text, { special: false });
	const lists = Array.from({ length: Math.ceil(ids.length / 99) }, (_, i) => [llama.tokenizer.bos!, ...ids.subarray(99 * i, 99 * (i + 1))]);
	const found = json<Found>(await perplexity('--context', '100', '--cache', 'tova', '--states', '32'));
	const right = await expected(tova(32), lists);
	expect(found.tokens).toBe(ids.length);
	expect(Math.abs(found.nll - right.nll)).toBeLessThan(1e-5 * right.nll);
	expect(found).toMatchObject({ context: 100, states: 32, cacheBytes: right.bytes });
});

test('for people: the same figures, and a note where the trained context is passed', async () => {
	const { stdout, stderr, code } = await oplus(['perplexity', '--model', place, '--text', story]);
	const found = json<Found>(await perplexity());
	expect(code).toBe(0);
	expect(stdout).toContain(`perplexity   ${found.perplexity.toFixed(4)}\n`);
	expect(stdout).toContain(`tokens       ${found.tokens} scored`);
	expect(stderr.match(/^note: /gm)).toHaveLength(1);
});

test('from stdin', async () => {
	const main = path.join(__dirname, '..', '..', 'dist', 'cli', 'main.js');
	const child = spawn(process.execPath, [main, 'perplexity', '--model', place, '--text', '-', '--json'], {
		stdio: ['pipe', 'pipe', 'ignore'],
	});
	let stdout = '';
	child.stdout.setEncoding('utf8').on('data', (part: string) => (stdout += part));
	child.stdin.end(text);
	await once(child, 'close');
	expect(JSON.parse(stdout).nll).toBe(json<Found>(await perplexity()).nll);
});

test('numbers that are not finite: which token, and why', async () => {
	const folder = await temporary();
	const tensors = madeTensors();
	const norm = tensors.get('model.norm.weight')!;
	const huge = new Uint8Array(new Float32Array(norm.data.length / 4).fill(3e38).buffer);
	tensors.set('model.norm.weight', { ...norm, data: huge });
	await fs.writeFile(path.join(folder, `tok${madeSizes.vocabulary}.bin`), madeTokenizer());
	const model = path.join(folder, 'huge.bin');
	await fs.writeFile(model, llama2cBytes(madeSizes, tensors));
	const said = refusal(await oplus(['perplexity', '--model', model, '--text', story, '--context', '40']), 1);
	expect(said).toMatch(
		/^oplus: .*huge\.bin: the loss of token 1 of those that are scored in .*story\.txt, ".*", is (NaN|Infinity), expected a finite number/,
	);
});

test('what is wrong is said in one line', async () => {
	const of = async (contents: string | Uint8Array) => oplus(['perplexity', '--model', place, '--text', await file('t.txt', contents)]);
	expect(refusal(await of(''), 1)).toContain('t.txt: the text has no token to score');
	expect(refusal(await of(Uint8Array.of(0x61, 0xe2, 0x82)), 1)).toContain('t.txt: found bytes that are not UTF-8, expected text');
	expect(refusal(await oplus(['perplexity', '--model', place, '--text', 'nothing.txt']), 1)).toContain(
		'nothing.txt: this cannot be opened (ENOENT)',
	);
	expect(refusal(await oplus(['perplexity', '--model', place]), 2)).toContain("'--text <file>' not specified");
	expect(refusal(await perplexity('--context', '1'), 2)).toContain('expected an integer from 2');
	expect(refusal(await perplexity('--cache', 'h2o'), 2)).toContain('--states is missing');
});

test('Ctrl-C stops: exit code 1, one line', async () => {
	const long = await file('long.txt', text.repeat(100));
	let sent = false;
	const found = await oplus(['perplexity', '--model', place, '--text', long, '--context', '64'], (stderr, child) => {
		if (sent || !stderr.includes('loaded in')) return;
		sent = true; // a second one would end it at once
		child.kill('SIGINT');
	});
	expect(refusal(found, 1)).toBe('oplus: interrupted');
});

describe.each(names)('encoding a file of %s in pieces', (name) => {
	const pieces = async (contents: string, tokenizer: Tokenizer, chunk: number) => {
		const found: number[][] = [];
		let last = { bytes: 0, done: 0 };
		for await (const { tokens, ...rest } of encodeFile(await file('some.txt', contents), tokenizer, {
			signal: new AbortController().signal,
			chunk,
		})) {
			found.push([...tokens]);
			expect(rest.bytes).toBeGreaterThanOrEqual(last.bytes);
			last = rest;
		}
		if (contents !== '') expect(last).toEqual({ bytes: Buffer.byteLength(contents), done: 1 });
		return found;
	};

	test.each([1024, 3000, 20_000])('chunks of %i characters: the tokens of the whole', async (chunk) => {
		const { tokenizer } = await Llama.load(await pathOf(name));
		const long = text.repeat(4);
		const found = await pieces(long, tokenizer, chunk);
		expect(found.flat()).toEqual([...tokenizer.encode(long, { special: false })]);
		if (name !== 'tinystories656k') expect(found.length).toBeGreaterThan(long.length / chunk / 2);
	});

	test('text of every kind', async () => {
		const { tokenizer } = await Llama.load(await pathOf(name));
		const odd = texts(new Random(3), 250)
			.join(' ')
			.replace(/\p{Surrogate}/gu, '\ufffd')
			.replace(/^\ufeff/, '');
		expect((await pieces(odd, tokenizer, 1500)).flat()).toEqual([...tokenizer.encode(odd, { special: false })]);
		const solid = 'abc'.repeat(4000); // nowhere to cut
		expect(await pieces(solid, tokenizer, 1024)).toEqual([[...tokenizer.encode(solid, { special: false })]]);
	});
});
