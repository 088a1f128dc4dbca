import { describe, expect, test } from 'vitest';
import { Aaren, Block, memory, ops, PerformerAttention, Random, ShapeError, Stack, tensor } from '../../lib/index.js';

const random = new Random(3);
const C = 12;
const token = (B: number) =>
	tensor(
		Float32Array.from({ length: B * C }, () => random.normal()),
		[B, 1, C],
	);

describe('a token alone takes a short cut to the same bits', () => {
	const kinds = {
		Aaren: () => new Aaren({ dim: C, heads: 3 }),
		'Aaren without folding': () => new Aaren({ dim: C, heads: 3, fold: false }),
		'Block, post-norm': () => new Block({ dim: C, heads: 3, hidden: 20 }),
		'Block, pre-norm': () => new Block({ dim: C, heads: 3, hidden: 20, norm: 'pre' }),
		'Block of causal attention': () => new Block({ dim: C, heads: 3, hidden: 20, mixer: 'attention' }),
		Stack: () => new Stack(3, { dim: C, heads: 3, hidden: 20 }),
		Performer: () => new PerformerAttention({ dim: C, heads: 3, features: 10 }),
		'Performer with positions': () => new PerformerAttention({ dim: C, heads: 3, features: 10, featureKind: 'elu', rope: true }),
		'Block of Performer, pre-norm': () =>
			new Block({ dim: C, heads: 3, hidden: 20, norm: 'pre', mixer: 'performer', features: 10, rope: true }),
		'Stack of Performer': () => new Stack(2, { dim: C, heads: 3, hidden: 20, mixer: 'performer', features: 18 }),
	};

	test.each(Object.entries(kinds))('%s', async (name, make) => {
		const model = make();
		for (const B of [1, 3, 2]) {
			const state = model.initialState({ batch: B });
			const other = model.initialState({ batch: B });
			for (let t = 0; t < 5; t++) {
				const x = token(B);
				// With lengths the way is the ordinary one; a cache of keys does not take them, and is compared with its clone.
				const slow = name.includes('attention') ? {} : { lengths: ops.lengths(Array(B).fill(1)) };
				expect(await model.forward(x, state).read()).toEqual(await model.forward(x, other, slow).read());
				expect(state.length).toBe(t + 1);
			}
			expect(await state.snapshot()).toEqual(await other.snapshot());
		}
	});

	test('two streams of one layer do not disturb each other', async () => {
		const model = new Block({ dim: C, heads: 3, hidden: 20 });
		const tokens = Array.from({ length: 6 }, () => token(1));
		const alone = model.initialState();
		const expected = [];
		for (const x of tokens) expected.push(await model.forward(x, alone).read());
		const [a, b] = [model.initialState(), model.initialState()];
		const results = tokens.map((x) => [model.forward(x, a), model.forward(x, b)] as const);
		for (const [i, [first, second]] of results.entries()) {
			expect(await first.read()).toEqual(expected[i]);
			expect(await second.read()).toEqual(expected[i]);
		}
	});

	test('new weights count at the next step', async () => {
		const model = new Aaren({ dim: C, heads: 3 });
		const x = token(1);
		const before = await model.forward(x, model.initialState()).read();
		for (const parameter of model.parameters().values())
			parameter.write(Float32Array.from({ length: parameter.size }, () => random.normal()));
		const after = await model.forward(x, model.initialState()).read();
		expect(after).not.toEqual(before);
		const all = await model.forward(x).read();
		for (let c = 0; c < C; c++) expect(after[c]).toBeCloseTo(all[c]!, 4);
	});

	test('what does not fit is refused, and the state stays as it was', () => {
		const model = new Block({ dim: C, heads: 3, hidden: 20 });
		const state = model.initialState();
		const wrong = [tensor(new Float32Array(5), [1, 1, 5]), tensor(new Float32Array(C), [C, 1])];
		for (const x of wrong) expect(() => model.forward(x, state)).toThrow(ShapeError);
		expect(() => model.forward(tensor(new Float32Array(C), [1, 1, C], { dtype: 'i32' }), state)).toThrow('holds i32, expected f32');
		expect(() => model.forward(token(2), state)).toThrow('the state is of 1 sequences, expected 2');
		expect(state.length).toBe(0);
	});

	test('its memory goes with the layer', () => {
		for (const more of [{}, { mixer: 'performer', features: 8, rope: true } as const]) {
			const { bytes, buffers } = memory();
			const model = new Block({ dim: C, heads: 3, hidden: 20, ...more });
			const state = model.initialState();
			const x = token(1);
			for (let t = 0; t < 3; t++) model.forward(x, state).dispose();
			for (const each of [x, state, model]) each.dispose();
			expect(memory()).toMatchObject({ bytes, buffers });
		}
	});
});
