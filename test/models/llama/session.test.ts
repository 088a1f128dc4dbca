import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, tova, window } from '../../../lib/cache/index.js';
import { Llama } from '../../../lib/models/llama.js';
import { pathOf, published, tokensFor } from './models.js';
import { lossOf } from './reference.js';

let model: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	tokens = [...(await tokensFor(model, 1400, 21))];
});

afterAll(() => model.dispose());

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
