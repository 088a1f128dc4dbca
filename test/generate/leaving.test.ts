/** Leaving early: aborts, errors and loops that are left, and what the decoder was fed by then. */
import { beforeAll, describe, expect, test } from 'vitest';
import type { Decoder } from '../../lib/generate/decoder.js';
import { generate, generateBatch, generateText } from '../../lib/generate/generate.js';
import { all, ByteTokenizer, FakeBatch, FakeDecoder } from './fakes.js';

const tokenizer = new ByteTokenizer();
const V = 258;
const prompt = [256, 1, 2, 3, 4, 5];
const options = { temperature: 0, ignoreEos: true } as const;
let whole: readonly number[];

beforeAll(async () => {
	whole = (await generateText(new FakeDecoder(V), tokenizer, prompt, { ...options, maxTokens: 12 })).tokens;
});

/** Going on from here gives what would have come. */
async function goesOn(decoder: Decoder, pending: readonly number[], already: readonly number[]): Promise<void> {
	const { tokens } = await generateText(decoder, tokenizer, pending, { ...options, maxTokens: 12 - already.length });
	expect([...already, ...tokens]).toEqual(whole);
}

test('leaving the loop leaves the last token to be fed, and the decoder to go on with', async () => {
	for (let n = 1; n <= 5; n++) {
		const decoder = new FakeDecoder(V);
		const generation = generate(decoder, tokenizer, prompt, options);
		expect(generation.pending).toEqual(prompt);
		const tokens: number[] = [];
		for await (const { token } of generation) {
			tokens.push(token);
			expect(generation.pending).toEqual([token]);
			if (tokens.length === n) break;
		}
		expect(decoder.fed).toEqual([...prompt, ...tokens.slice(0, -1)]);
		expect(await generation.next()).toEqual({ done: true, value: undefined });
		await goesOn(decoder, generation.pending, tokens);
	}
});

test('a generation that is disposed before or after it began', async () => {
	const decoder = new FakeDecoder(V);
	{
		await using generation = generate(decoder, tokenizer, prompt, options);
		await using begun = generate(decoder, tokenizer, prompt, options);
		await begun.next();
		expect(generation.pending).toEqual(prompt);
	}
	expect(decoder.calls).toEqual([prompt]);
	await goesOn(decoder, [], []);
});

describe('an abort throws its reason, untouched', () => {
	const reason = { not: 'even an error' };

	test('before anything', async () => {
		const decoder = new FakeDecoder(V);
		const generation = generate(decoder, tokenizer, prompt, { ...options, signal: AbortSignal.abort(reason) });
		await expect(all(generation)).rejects.toBe(reason);
		expect(decoder.calls).toEqual([]);
		expect(generation.pending).toEqual(prompt);
	});

	test('between two pieces', async () => {
		const decoder = new FakeDecoder(V);
		const controller = new AbortController();
		const generation = generate(decoder, tokenizer, prompt, { ...options, signal: controller.signal });
		const tokens = [(await generation.next()).value!.token, (await generation.next()).value!.token];
		controller.abort(reason);
		await expect(generation.next()).rejects.toBe(reason);
		expect(await generation.next()).toEqual({ done: true, value: undefined });
		expect(decoder.fed).toEqual([...prompt, tokens[0]]);
		expect(generation.pending).toEqual([tokens[1]]);
		await goesOn(decoder, generation.pending, tokens);
	});

	test.each([true, false])('in the middle of a prompt (the decoder counts: %s)', async (counts) => {
		const inner = new FakeDecoder(V);
		const controller = new AbortController();
		inner.before = async (token) => {
			if (token === 3) controller.abort(reason);
		};
		// One that does not count has taken all or nothing.
		const decoder: Decoder = counts
			? inner
			: { vocabulary: V, next: (tokens, given) => inner.next(tokens, given).finally(() => given?.signal?.aborted && inner.fed.splice(0)) };
		const generation = generate(decoder, tokenizer, prompt, { ...options, signal: controller.signal });
		await expect(generation.next()).rejects.toBe(reason);
		expect(inner.fed).toEqual(counts ? [256, 1, 2] : []);
		expect(generation.pending).toEqual(counts ? [3, 4, 5] : prompt);
		inner.before = () => undefined;
		await goesOn(inner, generation.pending, []);
	});

	test('while a token is fed, to a decoder that listens', async () => {
		const decoder = new FakeDecoder(V);
		const controller = new AbortController();
		const generation = generate(decoder, tokenizer, prompt, { ...options, signal: controller.signal });
		const tokens = [(await generation.next()).value!.token];
		decoder.before = (_, signal) => new Promise((_, reject) => signal!.addEventListener('abort', () => reject(new Error('cancelled'))));
		const next = generation.next();
		setImmediate(() => controller.abort(reason));
		await expect(next).rejects.toBe(reason);
		expect(generation.pending).toEqual(tokens);
		decoder.before = () => undefined;
		await goesOn(decoder, generation.pending, tokens);
	});

	test('while a token is fed, to a decoder that does not: it is waited for, and all is fed', async () => {
		const decoder = new FakeDecoder(V);
		const controller = new AbortController();
		const deaf: Decoder = {
			vocabulary: V,
			get position() {
				return decoder.fed.length;
			},
			next: (tokens) => decoder.next(tokens),
		};
		const generation = generate(deaf, tokenizer, prompt, { ...options, signal: controller.signal });
		const tokens = [(await generation.next()).value!.token];
		let release = () => {};
		decoder.before = () => new Promise((resolve) => (release = resolve));
		let settled = false;
		const next = generation.next().finally(() => (settled = true));
		next.catch(() => {});
		await new Promise(setImmediate);
		controller.abort(reason);
		await new Promise(setImmediate);
		expect(settled).toBe(false);
		release();
		await expect(next).rejects.toBe(reason);
		expect(generation.pending).toEqual([]);
		expect(decoder.fed).toEqual([...prompt, ...tokens]);
		decoder.before = () => undefined;
		await goesOn(decoder, [], tokens);
	});

	test('after the last piece there is nothing to abort, and no one listens any more', async () => {
		const controller = new AbortController();
		let listeners = 0;
		const { signal } = controller;
		const counted = Object.assign(signal, {
			addEventListener: (...given: Parameters<AbortSignal['addEventListener']>) => {
				listeners++;
				EventTarget.prototype.addEventListener.apply(signal, given);
			},
			removeEventListener: (...given: Parameters<AbortSignal['removeEventListener']>) => {
				listeners--;
				EventTarget.prototype.removeEventListener.apply(signal, given);
			},
		});
		const generation = generate(new FakeDecoder(V), tokenizer, prompt, { ...options, maxTokens: 2, signal: counted });
		await generation.next();
		expect((await generation.next()).value!.reason).toBe('length');
		expect(listeners).toBe(0);
		controller.abort(reason);
		expect(await generation.next()).toEqual({ done: true, value: undefined });
	});
});

test('returning while a token is fed ends that step', async () => {
	const decoder = new FakeDecoder(V);
	const generation = generate(decoder, tokenizer, prompt, options);
	const tokens = [(await generation.next()).value!.token];
	decoder.before = (_, signal) => new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason)));
	const next = generation.next();
	await new Promise(setImmediate);
	expect(await generation.return()).toEqual({ done: true, value: undefined });
	expect(await next).toEqual({ done: true, value: undefined });
	decoder.before = () => undefined;
	await goesOn(decoder, generation.pending, tokens);

	const thrown = generate(new FakeDecoder(V), tokenizer, prompt, options);
	await expect(thrown.throw(new Error('mine'))).rejects.toThrow('mine');
});

test('errors of the decoder arrive as they are', async () => {
	const failure = new Error('no memory');
	const decoder = new FakeDecoder(V);
	decoder.before = (token) => {
		if (token === 4) throw failure;
	};
	const generation = generate(decoder, tokenizer, prompt, options);
	await expect(generation.next()).rejects.toBe(failure);
	expect(generation.pending).toEqual([4, 5]);
	decoder.before = () => undefined;
	await goesOn(decoder, generation.pending, []);

	const sync: Decoder = {
		vocabulary: V,
		next: () => {
			throw failure;
		},
	};
	await expect(all(generate(sync, tokenizer, prompt))).rejects.toBe(failure);
	const broken = generate(new FakeDecoder(V, (_, n) => new Float32Array(n).fill(Number.NaN)), tokenizer, prompt);
	await expect(all(broken)).rejects.toThrow('the logit of token 0 is NaN');
	expect(broken.pending).toEqual([]);
});

test('several texts: an abort between two pieces of one step', async () => {
	const rows = [new FakeDecoder(V), new FakeDecoder(V), new FakeDecoder(V)];
	const controller = new AbortController();
	const prompts = [[256, 1], [256, 2, 3], [256]];
	const generation = generateBatch(new FakeBatch(rows), tokenizer, prompts, { ...options, signal: controller.signal });
	for (let i = 0; i < 4; i++) await generation.next();
	controller.abort('enough');
	await expect(generation.next()).rejects.toBe('enough');
	// The first has its second token, the others were not asked: they are as far as they were fed.
	expect(generation.pendings.map(({ length }) => length)).toEqual([1, 0, 0]);
	const further = await all(generateBatch(new FakeBatch(rows), tokenizer, generation.pendings, { ...options, maxTokens: 4 }));
	for (const [b, row] of prompts.entries()) {
		const { tokens } = await generateText(new FakeDecoder(V), tokenizer, row, { ...options, maxTokens: 6 });
		expect(further.filter(({ index }) => index === b).map(({ token }) => token)).toEqual(b === 0 ? tokens.slice(2) : tokens.slice(1, 5));
	}
});
