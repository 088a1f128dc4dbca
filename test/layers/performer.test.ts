import { describe, expect, test } from 'vitest';
import {
	Block,
	CausalAttention,
	devices,
	noGrad,
	ops,
	PerformerAttention,
	type PerformerAttentionOptions,
	Random,
	State,
	type Tensor,
	tensor,
} from '../../lib/index.js';
import { worst } from '../numbers.js';

const random = new Random(11);
const normals = (n: number, scale = 1) => Float32Array.from({ length: n }, () => scale * random.normal());
const largest = (x: Float32Array) => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/** The same sums in another order: a few roundings of the largest number, over the depth of the layer. */
const close = (found: Float32Array, expected: Float32Array) =>
	expect(worst(found, expected)).toBeLessThan(64 * 2 ** -24 * largest(expected));

/** A sum of the outputs with random weights, on the tape. */
function lossOf(y: Tensor): Tensor {
	const weights = tensor(normals(y.size), y.shape, { device: y.device });
	return ops.sum(ops.reshape(ops.mul(y, weights), [y.size]), 0);
}

for (const { name: device } of devices()) {
	describe(device, () => {
		const C = 24;
		const make = (options: Partial<PerformerAttentionOptions> = {}) =>
			new PerformerAttention({ dim: C, heads: 3, features: 16, seed: 1, device, ...options });
		const tokens = (B: number, T: number) => tensor(normals(B * T * C), [B, T, C], { device });

		test('many features come near the attention of the same weights', async () => {
			// Small tokens: where scores are large, an estimate of few features is off by as much as there is, and the fall begins late.
			const x = tensor(normals(40 * C, 0.3), [1, 40, C], { device });
			for (const options of [{}, { rope: true }, { causal: false, rope: true }]) {
				using exact = new CausalAttention({ dim: C, heads: 3, seed: 1, device, ...options });
				const expected = await noGrad(() => exact.forward(x)).read();
				const errors = await Promise.all(
					[16, 256].map(async (features) => {
						using layer = make({ features, ...options });
						let squares = 0;
						for (let draw = 0; draw < 100; draw++) {
							layer.features.draw = draw;
							const found = await noGrad(() => layer.forward(x)).read();
							squares += found.reduce((sum, value, i) => sum + (value - expected[i]!) ** 2, 0);
						}
						return Math.sqrt(squares);
					}),
				);
				// 16 times the features: 4 times less error, to within the luck of a hundred draws.
				expect(errors[0]! / errors[1]!).toBeGreaterThan(3);
				expect(errors[0]! / errors[1]!).toBeLessThan(5);
			}
		});

		test('gradients flow to every parameter, with positions and without', async () => {
			for (const mixer of ['performer', 'attention'] as const) {
				for (const rope of [false, true]) {
					for (const causal of [false, true]) {
						using block = new Block({ dim: C, heads: 3, hidden: 30, features: 16, mixer, rope, causal, norm: 'pre', device });
						lossOf(block.forward(tokens(2, 9))).backward();
						for (const [name, { grad }] of block.parameters()) {
							const numbers = await grad!.read();
							// Attention does not see what all keys have in common.
							if (mixer === 'attention' && !rope && name === 'mixer.k.bias') expect(largest(numbers)).toBeLessThan(1e-5);
							else expect(largest(numbers), name).toBeGreaterThan(1e-4);
						}
					}
				}
			}
		});

		test('gradients are those of differences', async () => {
			using layer = make({ rope: true });
			const x = tokens(1, 7);
			const weights = tensor(normals(7 * C), [1, 7, C], { device });
			const loss = () => ops.sum(ops.reshape(ops.mul(layer.forward(x), weights), [7 * C]), 0);
			loss().backward();
			for (const part of [layer.q, layer.k, layer.v, layer.out]) {
				const before = await part.weight.read();
				const gradient = await part.weight.grad!.read();
				// Along the gradient the loss rises by its squared length.
				const square = gradient.reduce((sum, value) => sum + value * value, 0);
				const step = 1e-2 / Math.sqrt(square);
				const at = async (factor: number) => {
					part.weight.write(before.map((value, i) => value + factor * step * gradient[i]!));
					return (await noGrad(loss).read())[0]!;
				};
				const slope = ((await at(1)) - (await at(-1))) / (2 * step);
				part.weight.write(before);
				// The loss is of size 10 and rounds at 2⁻²⁴ of that; the difference is about 10⁻² · |g|.
				expect(slope / square).toBeCloseTo(1, 2);
			}
		});

		test('without `causal` every token sees all, padding is not seen, and a state is refused', async () => {
			for (const layer of [
				make({ causal: false, rope: true }),
				new CausalAttention({ dim: C, heads: 3, rope: true, causal: false, device }),
			]) {
				const data = normals(20 * C);
				const run = (x: Float32Array, lengths?: Tensor) =>
					noGrad(() => layer.forward(tensor(x, [1, 20, C], { device }), undefined, lengths && { lengths })).read();
				const before = await run(data);
				const changed = data.map((value, i) => (i >= 19 * C ? value + 1 : value));
				expect((await run(changed)).subarray(0, C)).not.toEqual(before.subarray(0, C));
				const lengths = ops.lengths([19], device);
				expect((await run(changed, lengths)).subarray(0, 19 * C)).toEqual((await run(data, lengths)).subarray(0, 19 * C));

				const causal = layer instanceof PerformerAttention ? make({ rope: true }) : new CausalAttention({ dim: C, heads: 3, device });
				const state = causal.initialState();
				for (const T of [1, 5])
					expect(() => layer.forward(tokens(1, T), state)).toThrow('a state without `causal`, expected whole sequences');
				expect(() => layer.initialState()).toThrow('a state without `causal`, expected whole sequences');
				expect(state.length).toBe(0);
				expect(await run(data)).toEqual(before);
			}
		});

		test('positions count: two tokens that change places change what a third says', async () => {
			for (const mixer of ['performer', 'attention'] as const) {
				const data = normals(3 * C);
				const swapped = Float32Array.from([...data.subarray(C, 2 * C), ...data.subarray(0, C), ...data.subarray(2 * C)]);
				const changes: number[] = [];
				for (const rope of [false, true]) {
					using block = new Block({ dim: C, heads: 3, hidden: 30, features: 64, mixer, rope, seed: 3, device });
					const [a, b] = await Promise.all(
						[data, swapped].map((x) => noGrad(() => block.forward(tensor(x, [1, 3, C], { device }))).read()),
					);
					changes.push(worst(a!.subarray(2 * C), b!.subarray(2 * C)));
				}
				expect(changes[0]).toBeLessThan(1e-5);
				expect(changes[1]).toBeGreaterThan(1e-3);
			}
		});

		test('only distances count: a stream that began elsewhere says the same', async () => {
			using layer = new CausalAttention({ dim: C, heads: 3, rope: true, seed: 1, device });
			const x = tokens(2, 6);
			const expected = await noGrad(() => layer.forward(x)).read();
			// An empty cache at position 1000: what comes is turned by 1000 more, queries and keys alike.
			const state = layer.initialState({ batch: 2 });
			layer.forward(tokens(2, 1), state);
			const shifted = new State('attention', 2, { k: state.get('k'), v: state.get('v') }, [], 1);
			const once = await layer.forward(x, shifted).read();
			expect(once).not.toEqual(expected); // it has a token more to see
			using performer = make({ rope: true, features: 4096 });
			const late = performer.initialState({ batch: 2 });
			late.length = 1000;
			const [first, second] = [performer.initialState({ batch: 2 }), late].map((each) => performer.forward(x, each));
			// Ω is fixed and the turned queries meet other features: equal but for the error of the estimate.
			const [a, b] = [await first!.read(), await second!.read()];
			expect(Math.hypot(...a.map((value, i) => value - b[i]!)) / Math.hypot(...a)).toBeLessThan(0.1);
		});

		test('a state has one size, and clone, merge, snapshot and restore go on alike', async () => {
			using layer = make();
			const [a, b, c] = [9, 14, 3].map((T) => tokens(2, T)) as [Tensor, Tensor, Tensor];
			const whole = layer.initialState({ batch: 2 });
			expect(whole.bytes).toBe(4 * 2 * 3 * (1 + 16 + 16 * 8));
			layer.forward(a, whole).dispose();
			const copy = whole.clone();
			layer.forward(b, whole).dispose();
			expect(whole.bytes).toBe(copy.bytes);
			expect(copy.length).toBe(9);

			const second = layer.initialState({ batch: 2 });
			layer.forward(b, second).dispose();
			const merged = copy.merge(second);
			expect(merged.length).toBe(23);
			const empty = layer.initialState({ batch: 2 });
			const same = empty.merge(merged).merge(layer.initialState({ batch: 2 }));
			expect(await same.get('S').read()).toEqual(await merged.get('S').read());
			expect(await same.get('z').read()).toEqual(await merged.get('z').read());
			const restored = State.restore(await merged.snapshot(), { device });
			const expected = await layer.forward(c, whole).read();
			const after = await layer.forward(c, merged).read();
			close(after, expected);
			expect(await layer.forward(c, restored).read()).toEqual(after);
			expect(restored.length).toBe(26);
		});

		test('dropout acts in training alone, and its masks come from the seed', async () => {
			using layer = make({ dropout: 0.5 });
			const x = tokens(1, 12);
			const run = async (seed?: number) => {
				layer.setTraining(seed !== undefined, seed);
				return noGrad(() => layer.forward(x)).read();
			};
			const [off, one, again, two] = [await run(), await run(1), await run(1), await run(2)];
			expect(one).toEqual(again);
			expect(one).not.toEqual(two);
			expect(one).not.toEqual(off);
		});

		test('a block hands the options of features on, and keeps its own norms', () => {
			using block = new Block({
				dim: C,
				heads: 3,
				mixer: 'performer',
				features: 8,
				featureKind: 'relu',
				epsilon: 0.25,
				redrawEvery: 7,
				device,
			});
			const mixer = block.mixer as PerformerAttention;
			expect(mixer.features).toMatchObject({ features: 8, kind: 'relu', epsilon: 0.25, dim: 8 });
			expect(mixer).toMatchObject({ redrawEvery: 7, causal: true });
			expect([block.norm1.epsilon, block.norm2.epsilon]).toEqual([1e-5, 1e-5]);
		});

		test('wrong use: one clear error, and the layer still works', async () => {
			expect(() => make({ redrawEvery: -1 })).toThrow('performer: redrawEvery is -1, expected an integer from 0');
			expect(() => make({ features: 0 })).toThrow('features is 0');
			expect(() => make({ featureKind: 'sine' as 'cos' })).toThrow('kind is sine');
			expect(() => make({ heads: 8, rope: true })).toThrow('performer: rope with heads of 3 numbers, expected an even number');
			expect(() => new CausalAttention({ dim: 9, heads: 3, rope: true, device })).toThrow('attention: rope with heads of 3 numbers');
			for (const more of [{ rope: true }, { causal: false }])
				expect(() => new Block({ dim: C, heads: 3, device, ...more })).toThrow(/Block: mixer is aaren with (rope|causal false), expected/);
			using layer = make();
			const state = layer.initialState({ batch: 2 });
			expect(() => layer.forward(tokens(1, 3), state)).toThrow('the state is of 2 sequences, expected 1 as in x');
			using other = make({ features: 8 });
			expect(() => other.forward(tokens(2, 3), state)).toThrow(/shape|features/);
			expect(() => layer.forward(tokens(2, 3), new Block({ dim: C, heads: 3, device }).initialState({ batch: 2 }))).toThrow(
				'the state is of kind aaren, expected performer',
			);
			expect((await layer.forward(tokens(2, 3), state).read()).every(Number.isFinite)).toBe(true);
			expect(state.length).toBe(3);
			layer.dispose();
			expect(() => layer.forward(tokens(1, 3))).toThrow(/disposed/);
		});
	});
}
