/** What attention over a bounded cache refuses; the queue goes on. */
import { describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices } from '../lib/device.js';
import { ShapeError } from '../lib/errors.js';
import { callsOn, type Rules, rules, type Sizes, type Token } from './cache_calls.js';
import { generator } from './harness.js';

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const { floats, ints, empty, attend, tokens, bits } = callsOn(device);

	const n: Sizes = { B: 1, T: 1, H: 4, G: 2, D: 8, S: 4, P: 1, kind: 0 };
	const table = () => floats(Float32Array.from({ length: 5 * 8 }, generator(2)));
	const refuse = async (
		message: RegExp,
		more: Partial<Sizes>,
		also: Partial<Rules>,
		change: Partial<Token> = {},
		turned = false,
		ranks?: number[],
	) => {
		const cache = empty(n, turned);
		const first = turned ? { table: table() } : {};
		for (let position = 0; position < 4; position++) attend(cache, { ...tokens(n, position, position), ...first }, n, rules);
		if (ranks) cache.ranks!.write(Int32Array.from(ranks));
		const before = await bits(cache);
		const token: Token = { ...tokens(n, 4, 4), ...first, ...change };
		attend(cache, token, { ...n, ...more }, { ...rules, ...also });
		const failed = await Promise.resolve(token.o.read()).catch((error: unknown) => error);
		expect(failed).toBeInstanceOf(ShapeError);
		expect((failed as Error).message).toMatch(message);
		// The failed call marked what it would have written, so that nothing reads it: write the old bits back.
		for (const [name, tensor] of Object.entries(cache)) tensor?.write(Uint8Array.from(before[name]!));
		if (ranks) return;
		const again: Token = { ...tokens(n, 4, 4), ...first };
		attend(cache, again, n, rules);
		expect((await again.o.read()).every(Number.isFinite)).toBe(true);
	};

	test.each([
		['heads', /4 query heads over 3|4 heads do not share G = 3/, { G: 3 }, {}],
		['no heads', /over 0 key-value heads|do not share G = 0/, { G: 0 }, {}],
		['head dimension', /head dimension 0|D = 0/, { D: 0 }, {}],
		['no slots', /a cache of 0 slots/, { S: 0 }, {}],
		['more slots than there are', /`keys` holds 256 elements, expected 320/, { S: 5 }, {}],
		['far too many slots', /a cache of 2147483647 slots/, { S: 2 ** 31 - 1 }, {}],
		['choosers', /3 choosers/, { P: 3 }, {}],
		['choosers without memory', /`positions` holds 4 elements, expected 8/, { P: 2 }, {}],
		['kind', /no kind 2 of cache/, { kind: 2 }, {}],
		['rule', /no rule 4/, {}, { rule: 4 }],
		['rule below', /no rule -1/, {}, { rule: -1 }],
		['sinks and recent', /3 sinks and 2 recent/, {}, { sinks: 3, recent: 2 }],
		['sinks below', /-1 sinks/, {}, { sinks: -1 }],
		['sinks and recent that overflow together', /sinks/, {}, { sinks: 2 ** 53 - 1, recent: 2 ** 53 - 1 }],
		['reach', /a reach of 0/, {}, { reach: 0 }],
		['batch', /`q` holds 32 elements, expected 64/, { B: 2 }, {}],
		['negative batch', /negative/, { B: -1 }, {}],
		['tokens', /`q` holds 32 elements, expected 96/, { T: 3 }, {}],
	] as const)('%s', (_, message, more, also) => refuse(message, more, also));

	// What depends on numbers in memory is looked at on the CPU alone; elsewhere nothing is written out of bounds.
	const here = test.runIf(device === 'cpu');
	here('a full cache that never evicts', () => refuse(/5 tokens in a cache of 4 that never evicts/, {}, { rule: 0 }));
	here('positions below 0', () => refuse(/-1 tokens seen/, {}, {}, { seen: ints([-1]) }));
	here('positions beyond 2³¹', () => refuse(/2147483647 tokens seen/, {}, {}, { seen: ints([2 ** 31 - 1]) }));

	test('received of several tokens', async () => {
		const two = { ...n, T: 2 };
		await refuse(
			/2 tokens, expected 1 where `received` is asked for/,
			{ T: 2 },
			{},
			{ ...tokens(two, 4, 4), received: floats(new Float32Array(5)) },
		);
		await refuse(/2 tokens, expected 1 where the caller chooses/, { T: 2 }, { rule: 3 }, tokens(two, 4, 4));
	});
	test('received without room', () => refuse(/`received` holds 4 elements, expected 5/, {}, {}, { received: floats(new Float32Array(4)) }));
	test('a table without ranks', () => refuse(/ranks and a table go together/, {}, {}, { table: table() }));
	test('ranks without a table', () => refuse(/ranks and a table go together/, {}, {}, { table: null }, true));
	test('a table that is too short', () =>
		refuse(/`table` holds 39 elements, expected 40/, {}, {}, { table: floats(new Float32Array(39)) }, true));
	here.each([[[0, 1, 2, 4]], [[0, 1, -1, 2]], [[2 ** 31 - 1, 0, 1, 2]], [[-(2 ** 31), 0, 1, 2]]])('ranks %j', (ranks) =>
		refuse(/rank -?\d+ in a cache of 4/, {}, {}, {}, true, ranks),
	);

	test('cachePut', async () => {
		const cache = empty(n);
		const { k, v, seen } = tokens(n, 1, 4);
		const put = async (slots: number[], fresh: number[], sizes: Sizes) => {
			const { keys, values, positions, scores } = cache;
			const memory = [keys.buffer, values.buffer, positions.buffer, scores.buffer, null] as const;
			const chosen = [ints(slots).buffer, floats(fresh).buffer, seen.buffer] as const;
			binding.cachePut(k.buffer, v.buffer, ...memory, ...chosen, sizes.B, sizes.G, sizes.D, sizes.S, sizes.P, sizes.kind);
			const found = await Promise.resolve(positions.read()).catch((error: unknown) => error as Error);
			if (found instanceof Error) {
				positions.write(new Int32Array(4).fill(-7));
				for (const tensor of [keys, values, scores]) tensor.write(new Float32Array(tensor.size));
			}
			return found instanceof Error ? found.message : [...found];
		};
		for (const slot of device === 'cpu' ? [-1, 5, 2 ** 31 - 1, -(2 ** 31)] : [])
			expect(await put([slot], [0], n)).toBe(`cachePut: slot ${slot} of a cache of 4`);
		expect(await put([0], [], n)).toMatch(/`fresh` holds 0 elements, expected 1/);
		expect(await put([0], [0], { ...n, P: 2 })).toMatch(/`positions` holds 4 elements, expected 8/);
		expect(await put([0], [0], { ...n, S: 0 })).toMatch(/a cache of 0 slots/);
		expect(await put([0], [0], { ...n, kind: 5 })).toMatch(/no kind 5 of cache/);
		expect(await put([4], [0], n)).toEqual([-7, -7, -7, -7]); // dropped itself
		expect(await put([2], [0], n)).toEqual([-7, -7, 4, -7]);
	});
});
