import { describe, expect, test } from 'vitest';
import { devices, PerformerAttention, type PerformerAttentionOptions, Random, Stack, tensor } from '../../lib/index.js';
import { worst } from '../numbers.js';

const random = new Random(11);

for (const { name: device } of devices()) {
	describe(device, () => {
		const C = 24;
		const make = (options: Partial<PerformerAttentionOptions> = {}) =>
			new PerformerAttention({ dim: C, heads: 3, features: 16, seed: 1, device, ...options });
		const tokens = (B: number, T: number) =>
			tensor(
				Float32Array.from({ length: B * T * C }, () => random.normal()),
				[B, T, C],
				{ device },
			);

		test('features are drawn anew every R training steps and not in evaluation; old states are refused', async () => {
			using layer = make({ redrawEvery: 3 });
			const x = tokens(1, 4);
			const seen: number[] = [];
			for (let step = 0; step < 8; step++) {
				layer.setTraining(true, step);
				seen.push(layer.features.draw);
			}
			expect(seen).toEqual([0, 0, 0, 1, 1, 1, 2, 2]);
			layer.setTraining(false);
			const state = layer.initialState();
			for (let i = 0; i < 10; i++) {
				layer.setTraining(false);
				layer.forward(x, state);
			}
			expect(layer.features.draw).toBe(2);
			const { omega } = layer.features;
			layer.setTraining(true);
			expect(layer.features.omega).toBe(omega);
			layer.setTraining(true);
			expect(layer.features.draw).toBe(3);
			layer.setTraining(false);
			for (const T of [1, 4])
				expect(() => layer.forward(tokens(1, T), state)).toThrow(/the state is of draw 2 of seed \d+, expected 3 of \d+/);
			expect(() => state.merge(layer.initialState())).toThrow(/merge: found states of .*"draw":2.* and .*"draw":3/);
			expect((await layer.forward(x, layer.initialState()).read()).every(Number.isFinite)).toBe(true);

			using never = make({ redrawEvery: 0 });
			for (let step = 0; step < 5; step++) never.setTraining(true);
			expect(never.features.draw).toBe(0);
		});

		test('layers of a stack draw features of their own', async () => {
			using stack = new Stack(2, { dim: C, heads: 3, features: 16, mixer: 'performer', device });
			const [a, b] = await Promise.all(stack.blocks.map(({ mixer }) => (mixer as PerformerAttention).features.omega.read()));
			expect(worst(a!, b!)).toBeGreaterThan(0.1);
			expect([...stack.wholes().keys()]).toEqual(['0', '1'].flatMap((i) => ['seed', 'draw', 'age'].map((name) => `${i}.mixer.${name}`)));
			using other = new Stack(2, { dim: C, heads: 3, features: 16, mixer: 'performer', seed: 9, device });
			for (const [name, whole] of other.wholes()) whole.value = stack.wholes().get(name)!.value;
			const [first] = other.blocks;
			expect(await (first!.mixer as PerformerAttention).features.omega.read()).toEqual(a);
		});
	});
}
