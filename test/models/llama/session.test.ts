import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { ArgumentError, DisposedError } from '../../../lib/errors.js';
import { Llama } from '../../../lib/models/llama.js';
import { pathOf, published, tokensFor } from './models.js';
import { lossOf } from './reference.js';

let model: Llama;
let other: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	other = await Llama.load(await pathOf(published ? 'tinystories656k' : 'made'));
	tokens = [...(await tokensFor(model, 1400, 21))];
});

afterAll(() => {
	model.dispose();
	other.dispose();
});

/** Bytes held, once the rows that a model keeps from pass to pass are those of a single token. */
async function settled(): Promise<number> {
	using session = model.session({ cache: window(1) });
	await session.append(tokens.slice(0, 200));
	await session.append([1]);
	const own = session.bytes;
	await synchronize(); // what is queued holds its buffers
	return memory().bytes - own;
}

/** A loss is a difference of two numbers of the size of a logit, each rounded to f32. */
const rounding = (logits: ArrayLike<number>) => 8 * 2 ** -24 * Math.max(...Array.from(logits, Math.abs), 1);

describe('score', () => {
	test.each([
		['full', full()],
		['tova', tova(40)],
		['h2o', h2o(33)],
	])('%s: −ln softmax of what next says, token by token', async (_, cache) => {
		const text = tokens.slice(0, 700); // more than a chunk
		for (const positions of ['original', 'cache'] as const) {
			using one = model.session({ cache, positions });
			const right: number[] = [];
			let bound = 0;
			for (const token of text) {
				const logits = await one.next([]);
				if (one.position > 0) {
					right.push(lossOf(logits, token));
					bound = Math.max(bound, rounding(logits));
				}
				await one.append([token]);
			}
			using session = model.session({ cache, positions });
			const { nll, tokens: same } = await session.score(text);
			expect([...same]).toEqual(text);
			expect(nll[0]).toBeNaN();
			const worstLoss = Math.max(...right.map((loss, i) => Math.abs(loss - nll[i + 1]!)));
			expect(worstLoss).toBeLessThanOrEqual(2e-4 + bound); // 1e-4 for each of two ways to cut, as in golden.test.ts
			expect(await session.kept(1)).toEqual(await one.kept(1));
		}
	});

	test('goes on from what was fed before, and leaves the logits of what follows', async () => {
		using whole = model.session({ cache: tova(50) });
		const { nll } = await whole.score(tokens.slice(0, 300));
		using session = model.session({ cache: tova(50) });
		await session.append(tokens.slice(0, 100));
		const parts = [await session.score(tokens.slice(100, 101)), await session.score(tokens.slice(101, 300)), await session.score([])];
		const found = parts.flatMap((part) => [...part.nll]);
		expect(found).toHaveLength(200);
		for (const [i, loss] of found.entries()) expect(Math.abs(loss - nll[100 + i]!)).toBeLessThan(2e-4);
		const [a, b] = [await whole.next([]), await session.next([])];
		expect(Math.max(...a.map((x, i) => Math.abs(x - b[i]!)))).toBeLessThan(2e-4);
	});

	test('a single first token, and nothing at all', async () => {
		using session = model.session({ cache: window(8) });
		expect((await session.score([])).nll).toEqual(new Float32Array(0));
		expect(session.position).toBe(0);
		expect([...(await session.score([1])).nll]).toEqual([NaN]);
		expect(session.position).toBe(1);
		const text = model.tokenizer.decode(tokens.slice(0, 20));
		using fresh = model.session({ cache: full() });
		expect([...(await fresh.score(text)).tokens]).toEqual([...model.tokenizer.encode(text)]);
	});
});

describe('several sequences', () => {
	test('next gives the logits of each, and of those that were fed nothing what they had', async () => {
		using session = model.session({ cache: tova(20), batch: 3 });
		const { vocabulary } = model.config;
		const first = (await session.next([[1, 5], [], [7]])).slice();
		expect(first.subarray(vocabulary, 2 * vocabulary).every(Number.isNaN)).toBe(true);
		const second = (await session.next([[], [3], []])).slice();
		for (const b of [0, 2]) {
			expect(second.subarray(b * vocabulary, (b + 1) * vocabulary)).toEqual(first.subarray(b * vocabulary, (b + 1) * vocabulary));
		}
		expect(second.subarray(vocabulary, 2 * vocabulary).every(Number.isFinite)).toBe(true);
		expect(await session.next([[], [], []])).toEqual(second);
		expect([...session.sequencePositions]).toEqual([2, 1, 1]);
		expect(session.states).toBe(2);
	});

	test('more sequences than a chunk has rows', async () => {
		const batch = 600;
		using session = model.session({ cache: tova(4), batch });
		const lists = Array.from({ length: batch }, (_, b) => tokens.slice(b, b + (b % 7)));
		const logits = await session.next(lists);
		using alone = model.session({ cache: tova(4) });
		const { vocabulary } = model.config;
		const right = await alone.next(lists[559]!);
		const found = logits.subarray(559 * vocabulary, 560 * vocabulary);
		expect(Math.max(...right.map((x, i) => Math.abs(x - found[i]!)))).toBeLessThan(2e-4);
		expect([...session.sequencePositions]).toEqual(lists.map(({ length }) => length));
	});
});

describe('fork', () => {
	test.each([
		['original', tova(24)],
		['cache', tova(24)],
		['cache', h2o(15)],
		['original', full()],
		['cache', full()],
	] as const)('positions %s, %o: both go their own way', async (positions, cache) => {
		const before = await settled();
		const straight = async (list: readonly number[]) => {
			using session = model.session({ cache, positions });
			await session.append(tokens.slice(0, 60));
			return (await session.next(list)).slice();
		};
		const ways = [tokens.slice(100, 150), tokens.slice(200, 205), tokens.slice(300, 400)];
		const right = [await straight(ways[0]!), await straight(ways[1]!), await straight(ways[2]!)];
		for (const order of [
			[0, 1, 2],
			[2, 1, 0],
			[1, 0, 2],
		]) {
			const session = model.session({ cache, positions });
			await session.append(tokens.slice(0, 60));
			await synchronize();
			const held = memory().bytes;
			const [a, b] = [session.fork(), session.fork()];
			expect(memory().bytes).toBe(held); // nothing is copied before somebody writes
			const all = [session, a, b];
			expect(b.position).toBe(60);
			expect(await b.kept(0)).toEqual(await session.kept(0));
			for (const i of order) expect(await all[i]!.next(ways[i]!)).toEqual(right[i]);
			for (const i of order) {
				all[i]!.dispose();
				all[i]!.dispose();
				for (const rest of all) if (!rest.disposed) await rest.append([5]);
			}
			expect(await settled()).toBe(before);
		}
	});

	test('a fork of a fork outlives both, and has logits of its own', async () => {
		const session = model.session({ cache: tova(16), positions: 'cache' });
		await session.append(tokens.slice(0, 40));
		const logits = (await session.next([])).slice();
		const child = session.fork();
		await session.append([9]);
		expect(await child.next([])).toEqual(logits);
		const grandchild = child.fork();
		session.dispose();
		child.dispose();
		using alone = model.session({ cache: tova(16), positions: 'cache' });
		await alone.append(tokens.slice(0, 40));
		expect(await grandchild.next([7, 8])).toEqual(await alone.next([7, 8]));
		grandchild.dispose();
		expect(() => session.fork()).toThrow(DisposedError);
	});
});

describe('what cannot be is refused, and the session goes on', () => {
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
		for (const wrong of [
			{ batch: 0 },
			{ batch: 1.5 },
			{ batch: 2 ** 40 },
			{ positions: 'relative' },
			{ dtype: 'f64' },
			{ dtype: 'bf16' },
		]) {
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
		for (const [layer, head, sequence] of [
			[-1],
			[model.config.layers],
			[0.5],
			[0, model.config.kvHeads],
			[0, -1],
			[0, 0, 1],
			[0, 0, NaN],
		]) {
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
		const before = await settled();
		const session = model.session({ cache: tova(8) });
		const running = session.append(tokens);
		session.dispose();
		await expect(running).rejects.toThrow(DisposedError);
		expect(await settled()).toBe(before);
		using next = model.session({ cache: tova(8) });
		expect((await next.next([1])).every(Number.isFinite)).toBe(true);
	});
});
