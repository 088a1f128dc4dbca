/** Steps over a bounded cache: ties, and caches whose caller chooses what goes. */
import { afterAll, describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices, setThreads } from '../lib/device.js';
import type { Tensor } from '../lib/tensor.js';
import { callsOn, rules, type Sizes, type Token } from './cache_calls.js';
import { generator, isSlow } from './harness.js';

afterAll(() => setThreads(0));

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const { floats, ints, empty, attend, tokens, bits } = callsOn(device);

	describe('ties', () => {
		const n: Sizes = { B: 1, T: 1, H: 2, G: 1, D: 8, S: 5, P: 1, kind: 0 };
		/** Equal keys: every entry receives as much as any other. */
		const alike = (position: number): Token => {
			const numbers = (heads: number, value: number) => floats(new Float32Array(heads * 8).fill(value));
			return { q: numbers(2, 1), k: numbers(1, 0.5), v: numbers(1, position), seen: ints([position]), o: numbers(2, 0) };
		};

		test.each([
			['the lowest position goes', {}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]],
			['but for sinks', { sinks: 2 }, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]],
			['and the recent', { sinks: 1, recent: 4 }, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
			['by position alone', { rule: 1, sinks: 3 }, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]],
			['the new one too, where all others may stay', { sinks: 5 }, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]],
		] as const)('%s', async (_, more, gone) => {
			const cache = empty(n);
			for (let position = 0; position < 17; position++) {
				attend(cache, alike(position), n, { ...rules, ...more });
				if (position < 5) continue;
				const held = [...(await cache.positions.read())].sort((a, b) => a - b);
				const all = Array.from({ length: position + 1 }, (__, i) => i);
				expect(held).toEqual(all.filter((each) => !(gone as readonly number[]).slice(0, position - 4).includes(each)));
			}
		});

		test('slots are not in the order of positions: after evictions in the middle, position still decides', async () => {
			const cache = empty(n);
			for (let position = 0; position < 5; position++) attend(cache, alike(position), n, rules);
			cache.positions.write(Int32Array.of(9, 4, 7, 2, 8));
			attend(cache, alike(10), n, { ...rules, sinks: 1 });
			expect([...(await cache.positions.read())]).toEqual([9, 4, 7, 10, 8]);
		});
	});

	test.each([
		['one chooser', { P: 1 }, {}, false],
		['a chooser a head', { P: 2 }, {}, false],
		['with ranks', { P: 2 }, { sinks: 2 }, true],
		['of halves, with recent ones kept', { P: 1, kind: 1 }, { recent: 3, sinks: 1 }, true],
	] as const)('rule 3 and cachePut are rule 2, step by step: %s', async (_, more, also, turned) => {
		const n: Sizes = { B: 2, T: 1, H: 4, G: 2, D: 20, S: 7, kind: 0, ...more };
		const { sinks, recent } = { ...rules, ...also };
		const [inside, outside] = [empty(n, turned), empty(n, turned)];
		const table = turned ? floats(Float32Array.from({ length: (n.S + 1) * n.D }, generator(9))) : null;
		for (let position = 0; position < (isSlow(device) ? 12 : 40); position++) {
			const token = { ...tokens(n, position, position), table };
			attend(inside, token, n, { ...rules, ...also, rule: 2 });
			const o = await token.o.read();
			const received = floats(new Float32Array(n.B * n.P * (n.S + 1)));
			attend(outside, { ...token, received }, n, { ...rules, ...also, rule: 3 });
			expect(await token.o.read()).toEqual(o);
			const [given, places] = [await received.read(), await outside.positions.read()];
			const held = Math.min(position, n.S);
			const slots: number[] = [];
			const fresh: number[] = [];
			for (let i = 0; i < n.B * n.P; i++) {
				const score = (j: number) => given[i * (n.S + 1) + j]!;
				const where = (j: number) => (j < n.S ? places[i * n.S + j]! : position);
				const may = Array.from({ length: n.S + 1 }, (__, j) => j).filter((j) => where(j) >= sinks && where(j) <= position - recent);
				slots.push(held < n.S ? held : may.reduce((a, b) => (score(b) < score(a) ? b : a)));
				fresh.push(score(n.S));
			}
			// Rule 2 with keep = 0 has each entry's score of this step.
			outside.scores.write(
				Float32Array.from({ length: n.B * n.P * n.S }, (__, i) =>
					i % n.S < held ? given[Math.floor(i / n.S) * (n.S + 1) + (i % n.S)]! : NaN,
				),
			);
			const { keys, values, positions, scores, ranks } = outside;
			const memory = [keys.buffer, values.buffer, positions.buffer, scores.buffer, ranks?.buffer ?? null] as const;
			const chosen = [ints(slots).buffer, floats(fresh).buffer, token.seen.buffer] as const;
			binding.cachePut(token.k.buffer, token.v.buffer, ...memory, ...chosen, n.B, n.G, n.D, n.S, n.P, n.kind);
			expect(await bits(outside), `position ${position}`).toEqual(await bits(inside));
		}
	});

	test.runIf(device === 'cpu')('the same to the bit, in one call or in many, on one thread or two', async () => {
		const n: Sizes = { B: 1, T: 30, H: 4, G: 4, D: 1024, S: 36, P: 4, kind: 0 };
		const all = tokens({ ...n, T: 60 }, 3, 0);
		const found = [];
		for (const [T, threads] of [
			[60, 1],
			[60, 2],
			[1, 2],
			[20, 1],
		] as const) {
			setThreads(threads);
			const cache = empty(n);
			const outputs: number[] = [];
			for (let seen = 0; seen < 60; seen += T) {
				const part = async (x: Tensor) => floats((await x.read()).subarray(seen * 4096, (seen + T) * 4096));
				const token = {
					q: await part(all.q),
					k: await part(all.k),
					v: await part(all.v),
					seen: ints([seen]),
					o: floats(new Float32Array(T * 4096)),
				};
				attend(cache, token, { ...n, T }, { ...rules, keep: 1, sinks: 2 });
				for (const number of await token.o.read()) outputs.push(number);
			}
			found.push(
				Buffer.from(Float32Array.from(outputs).buffer).toString('base64') +
					JSON.stringify(await bits({ ...cache, keys: cache.positions, values: cache.scores })),
			);
		}
		for (const other of found.slice(1)) expect(other === found[0]).toBe(true);
	});

	test('keys that are no numbers spoil what they touch and nothing else', async () => {
		const n: Sizes = { B: 2, T: 1, H: 2, G: 2, D: 8, S: 4, P: 2, kind: 0 };
		const [cache, clean] = [empty(n), empty(n)];
		for (let position = 0; position < 20; position++) {
			const token = tokens(n, position, position);
			attend(clean, token, n, rules);
			const wanted = await token.o.read();
			if (position === 6) {
				const k = await token.k.read();
				k.fill(NaN, 0, 8); // sequence 0, head 0
				token.k.write(k);
			}
			attend(cache, token, n, rules);
			const o = await token.o.read();
			expect(o.subarray(8)).toEqual(wanted.subarray(8));
			expect(o.subarray(0, 8).every(Number.isNaN)).toBe(position === 6 || (position > 6 && Number.isNaN(o[0]!)));
			const [held, sound] = [await cache.positions.read(), await clean.positions.read()];
			expect(held.subarray(4)).toEqual(sound.subarray(4));
			const found = held.subarray(0, 4).filter((each) => each >= 0 && each <= position);
			expect(new Set(found).size).toBe(Math.min(position + 1, 4));
		}
	});
});
