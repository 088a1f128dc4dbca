import { afterAll, beforeAll, expect, test } from 'vitest';
import { h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory } from '../../../lib/device.js';
import { ArgumentError, DisposedError } from '../../../lib/errors.js';
import { Llama } from '../../../lib/models/llama.js';
import { pathOf, published, settled, tokensFor } from './models.js';

let model: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	tokens = [...(await tokensFor(model, 1400, 21))];
});

afterAll(() => model.dispose());

test('tokens', async () => {
	const V = model.config.vocabulary;
	using session = model.session({ cache: tova(8) });
	await session.append([1, 2, 3]);
	const logits = (await session.next([])).slice();
	const wrong: unknown[] = [
		[V],
		[-1],
		[1.5],
		[NaN],
		['1'],
		[1n],
		[undefined],
		[[1], [2]],
		5,
		null,
		undefined,
		'abc',
		{},
		[null],
		[1, undefined, 2],
	];
	for (const list of wrong) {
		for (const call of ['append', 'next', 'score'] as const) {
			if (call === 'score' && typeof list === 'string') continue; // text
			await expect((async () => session[call](list as number[]))(), `${call}(${String(list)})`).rejects.toThrow(ArgumentError);
		}
	}
	expect(session.position).toBe(3);
	expect(await session.next([])).toEqual(logits);
	await session.append([4]);
});

test('lists', async () => {
	using session = model.session({ cache: tova(8), batch: 2 });
	for (const lists of [[[1]], [[1], [2], [3]], [1, 2], [], [[1], 2], [[1], null], 3, [[1], [model.config.vocabulary]]]) {
		await expect((async () => session.append(lists as number[][]))(), JSON.stringify(lists)).rejects.toThrow(ArgumentError);
	}
	await expect((async () => session.score([1]))()).rejects.toThrow(ArgumentError);
	expect(() => session.generate('a')).toThrow(ArgumentError);
	expect([...session.sequencePositions]).toEqual([0, 0]);
	await session.append([[1], [2]]);
});

test('no lists and no options at all', async () => {
	using session = model.session({ cache: tova(8), batch: 2 });
	for (const nothing of [undefined, null]) {
		await expect((async () => session.append(nothing as never))(), String(nothing)).rejects.toThrow(ArgumentError);
		expect(() => model.session(nothing as never), String(nothing)).toThrow(ArgumentError);
	}
});

test('policies and options', () => {
	const before = memory().bytes;
	const good = tova(4);
	const { layers } = model.config;
	const caches: unknown[] = [
		undefined,
		null,
		'tova',
		[],
		Array(layers - 1).fill(good),
		Array(layers + 1).fill(good),
		[...Array(layers - 1).fill(good), null],
		{ ...good, size: 0 },
		{ ...good, size: 1.5 },
		{ ...good, size: NaN },
		{ ...good, size: -Infinity },
		{ ...good, sinks: -1 },
		{ ...good, recent: 5 },
		{ ...good, sinks: 2, recent: 3 },
		{ ...good, score: 'age' },
		{ ...good, heads: 'both' },
		{ ...good, memory: 2 },
		{ ...good, memory: NaN },
		() => good,
	];
	for (const cache of caches) expect(() => model.session({ cache: cache as Policy }), String(cache)).toThrow(ArgumentError);
	for (const wrong of [{ batch: 0 }, { batch: 1.5 }, { batch: 2 ** 40 }, { positions: 'relative' }, { dtype: 'f64' }, { dtype: 'bf16' }]) {
		expect(() => model.session({ cache: good, ...(wrong as object) }), JSON.stringify(wrong)).toThrow(ArgumentError);
	}
	for (const make of [
		() => tova(0),
		() => tova(4, { sinks: 5 }),
		() => h2o(4, { recent: 5 }),
		() => window(2, { sinks: 3 }),
		() => h2o(NaN),
	]) {
		expect(make).toThrow(ArgumentError);
	}
	expect(memory().bytes).toBe(before);
});

test('places that are not there', async () => {
	using session = model.session({ cache: h2o(4) });
	await session.append([1, 2]);
	for (const [layer, head, sequence] of [[-1], [model.config.layers], [0.5], [0, model.config.kvHeads], [0, -1], [0, 0, 1], [0, 0, NaN]]) {
		await expect(session.kept(layer!, head, sequence)).rejects.toThrow(ArgumentError);
	}
});

test('two calls at once', async () => {
	using session = model.session({ cache: tova(8) });
	const first = session.append(tokens.slice(0, 1200));
	for (const call of [() => session.append([1]), () => session.next([1]), () => session.score([1]), () => session.snapshot()]) {
		await expect(call()).rejects.toThrow('still running');
	}
	expect(() => session.fork()).toThrow('still running');
	await first;
	expect(session.position).toBe(1200);
	await session.append([1]);
});

test('a session or model that was disposed of', async () => {
	const session = model.session({ cache: tova(8) });
	const bytes = memory().bytes;
	session.dispose();
	session.dispose();
	expect(memory().bytes).toBeLessThan(bytes);
	expect(session.bytes).toBe(0);
	for (const call of [
		() => session.append([1]),
		() => session.next([1]),
		() => session.score([1]),
		() => session.snapshot(),
		() => session.kept(0),
	]) {
		await expect((async () => call())()).rejects.toThrow(DisposedError);
	}
	const gone = await Llama.load(model.path);
	using left = gone.session({ cache: tova(8) });
	await left.append([1]);
	gone.dispose();
	await expect(left.append([1])).rejects.toThrow(DisposedError);
	expect(() => gone.session({ cache: tova(8) })).toThrow(DisposedError);
});

test('disposed of while it runs', async () => {
	const before = await settled(model);
	const session = model.session({ cache: tova(8) });
	const running = session.append(tokens);
	session.dispose();
	await expect(running).rejects.toThrow(DisposedError);
	expect(await settled(model)).toBe(before);
	using next = model.session({ cache: tova(8) });
	expect((await next.next([1])).every(Number.isFinite)).toBe(true);
});
