import { describe, expect, test } from 'vitest';
import {
	Aaren,
	Block,
	CausalAttention,
	CrossAttention,
	devices,
	FormatError,
	memory,
	noGrad,
	ops,
	PerformerAttention,
	Random,
	type Recurrent,
	Stack,
	State,
	type Tensor,
	tensor,
} from '../../lib/index.js';
import { worst } from '../numbers.js';

const random = new Random(7);
const normals = (n: number, scale = 1) => Float32Array.from({ length: n }, () => scale * random.normal());

/** Rows [from, to) of `[B, T, C]`. */
function rows(x: Tensor, from: number, to: number): Tensor {
	return noGrad(() => ops.slice(x, 1, from, to));
}

async function inPieces(layer: Recurrent, x: Tensor, cuts: readonly number[]): Promise<Float32Array> {
	const [B, T, C] = x.shape as [number, number, number];
	const state = layer.initialState({ batch: B });
	const out = new Float32Array(B * T * C);
	for (let i = 0; i + 1 < cuts.length; i++) {
		const [from, to] = [cuts[i]!, cuts[i + 1]!];
		const y = await layer.forward(rows(x, from, to), state).read();
		for (let b = 0; b < B; b++) out.set(y.subarray(b * (to - from) * C, (b + 1) * (to - from) * C), (b * T + from) * C);
	}
	expect(state.length).toBe(T);
	return out;
}

for (const { name: device } of devices()) {
	describe(device, () => {
		test('parameter counts of the paper', () => {
			using aaren = new Block({ dim: 512, heads: 8, hidden: 2048, device });
			using attention = new Block({ dim: 512, heads: 8, hidden: 2048, mixer: 'attention', device });
			using performer = new Block({ dim: 512, heads: 8, hidden: 2048, mixer: 'performer', device });
			expect(aaren.parameterCount).toBe(3_152_896);
			expect(attention.parameterCount).toBe(3_152_384);
			expect(performer.parameterCount).toBe(3_152_384);
		});

		const layers: Record<string, () => Recurrent> = {
			Aaren: () => new Aaren({ dim: 24, heads: 3, seed: 1, device }),
			CausalAttention: () => new CausalAttention({ dim: 24, heads: 3, seed: 1, device }),
			'CausalAttention with positions': () => new CausalAttention({ dim: 24, heads: 3, seed: 1, rope: true, device }),
			PerformerAttention: () => new PerformerAttention({ dim: 24, heads: 3, features: 16, seed: 1, device }),
			'PerformerAttention with positions, ReLU': () =>
				new PerformerAttention({ dim: 24, heads: 3, features: 20, featureKind: 'relu', rope: true, seed: 1, device }),
			'Block, post-norm': () => new Block({ dim: 24, heads: 2, hidden: 40, seed: 2, device }),
			'Block, pre-norm': () => new Block({ dim: 24, heads: 2, hidden: 40, seed: 2, norm: 'pre', mixer: 'attention', device }),
			'Block of Performer': () => new Block({ dim: 24, heads: 2, hidden: 40, seed: 2, mixer: 'performer', features: 32, device }),
			Stack: () => new Stack(3, { dim: 24, heads: 4, seed: 3, device }),
			'Stack of Performer': () =>
				new Stack(3, { dim: 24, heads: 4, seed: 3, mixer: 'performer', features: 16, rope: true, norm: 'pre', device }),
		};
		for (const [name, make] of Object.entries(layers)) {
			test(`${name}: all at once, in random pieces and one by one agree`, async () => {
				const layer = make();
				const [B, T, C] = [2, 77, 24];
				const x = tensor(normals(B * T * C), [B, T, C], { device });
				const whole = await noGrad(() => layer.forward(x)).read();
				const scale = whole.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
				const cuts = [0, ...new Set(Array.from({ length: 6 }, () => 1 + random.integer(T - 1))), T].sort((a, b) => a - b);
				const single = Array.from({ length: T + 1 }, (_, t) => t);
				// The same sums in another order: a few roundings of the largest number, over the depth of the layer.
				expect(worst(await inPieces(layer, x, cuts), whole)).toBeLessThan(64 * 2 ** -24 * scale);
				expect(worst(await inPieces(layer, x, single), whole)).toBeLessThan(64 * 2 ** -24 * scale);
			});

			test(`${name}: the future does not reach the past`, async () => {
				const layer = make();
				const data = normals(33 * 24);
				const before = await noGrad(() => layer.forward(tensor(data, [1, 33, 24], { device }))).read();
				data.fill(5, 20 * 24);
				const after = await noGrad(() => layer.forward(tensor(data, [1, 33, 24], { device }))).read();
				expect(after.subarray(0, 20 * 24)).toEqual(before.subarray(0, 20 * 24));
				expect(after.subarray(20 * 24)).not.toEqual(before.subarray(20 * 24));
			});
		}

		test('folded keys equal unfolded ones, in inference and in gradients', async () => {
			const x = tensor(normals(2 * 19 * 32), [2, 19, 32], { device });
			const weights = tensor(normals(2 * 19 * 32), [2, 19, 32], { device });
			const results: Float32Array[][] = [];
			for (const fold of [true, false]) {
				using layer = new Aaren({ dim: 32, heads: 4, seed: 5, fold, device });
				x.grad?.dispose();
				x.grad = null;
				x.requiresGrad = true;
				const y = layer.forward(x);
				const loss = ops.sum(ops.reshape(ops.mul(y, weights), [2 * 19 * 32]), 0);
				loss.backward();
				const gradients = [layer.query, layer.q.weight, layer.q.bias!, layer.k.weight, layer.v.weight, layer.out.weight, x];
				results.push([await y.read(), ...(await Promise.all(gradients.map((item) => item.grad!.read())))]);
				// The key bias shifts all scores of a head alike: its gradient is 0 (algorithms B), exactly where it is folded away.
				const bias = layer.k.bias!.grad;
				if (fold) expect(bias).toBeNull();
				else expect(worst(await bias!.read(), new Float32Array(32))).toBeLessThan(1e-4);
			}
			const [folded, unfolded] = results as [Float32Array[], Float32Array[]];
			folded.forEach((numbers, i) => {
				const scale = unfolded[i]!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
				expect(worst(numbers, unfolded[i]!) / scale).toBeLessThan(256 * 2 ** -24);
			});
		});

		test("Aaren's state has a fixed size, attention's grows", () => {
			using aaren = new Aaren({ dim: 64, heads: 4, device });
			using attention = new CausalAttention({ dim: 64, heads: 4, device });
			using constant = aaren.initialState();
			using growing = attention.initialState();
			expect(constant.bytes).toBe(4 * 4 * (16 + 2));
			for (const T of [1, 100, 300]) {
				const x = tensor(normals(T * 64), [1, T, 64], { device });
				aaren.forward(x, constant).dispose();
				attention.forward(x, growing).dispose();
				x.dispose();
			}
			expect(constant.bytes).toBe(4 * 4 * (16 + 2));
			expect(growing.bytes).toBeGreaterThanOrEqual(401 * 64 * 2 * 4);
		});

		test('states: clone goes its own way, merge is ⊕, snapshot and restore', async () => {
			using layer = new Aaren({ dim: 32, heads: 4, seed: 2, device });
			const [a, b, c] = [9, 14, 3].map((T) => tensor(normals(T * 32), [1, T, 32], { device })) as [Tensor, Tensor, Tensor];
			const whole = layer.initialState();
			layer.forward(a, whole).dispose();
			const copy = whole.clone();
			layer.forward(b, whole).dispose();
			expect(copy.length).toBe(9);

			const second = layer.initialState();
			layer.forward(b, second).dispose();
			const merged = copy.merge(second);
			expect(merged.length).toBe(23);
			const restored = State.restore(await merged.snapshot(), { device });
			const expected = await layer.forward(c, whole).read();
			const scale = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
			expect(worst(await layer.forward(c, merged).read(), expected)).toBeLessThan(32 * 2 ** -24 * scale);
			expect(worst(await layer.forward(c, restored).read(), expected)).toBeLessThan(32 * 2 ** -24 * scale);
			expect(restored.length).toBe(26);
		});

		test('snapshots: every changed or missing byte is refused', async () => {
			using stack = new Stack(2, { dim: 8, heads: 2, device });
			const state = stack.initialState();
			stack.forward(tensor(normals(5 * 8), [1, 5, 8], { device }), state);
			const blob = await state.snapshot();
			expect(State.restore(blob).parts.length).toBe(2);
			for (let i = 0; i < blob.length; i += 1) {
				const changed = blob.slice();
				changed[i]! ^= 1 << (i % 8);
				expect(() => State.restore(changed)).toThrow(FormatError);
			}
			for (const end of [0, 7, 15, 16, 47, 48, blob.length - 33, blob.length - 1])
				expect(() => State.restore(blob.subarray(0, end))).toThrow(FormatError);
			expect(() => State.restore('no bytes' as unknown as Uint8Array)).toThrow(FormatError);
		});

		test('cross attention: three uses, merge, and a stream of any length in the same bytes', async () => {
			using layer = new CrossAttention({ dim: 24, heads: 3, latents: 5, seed: 4, device });
			const x = tensor(normals(2 * 41 * 24), [2, 41, 24], { device });
			const whole = await noGrad(() => layer.forward(x)).read();
			expect(whole.length).toBe(2 * 5 * 24);
			const state = layer.initialState({ batch: 2 });
			const { bytes } = state;
			let last = new Float32Array();
			for (let t = 0; t < 41; t++) last = (await layer.forward(rows(x, t, t + 1), state).read()) as Float32Array<ArrayBuffer>;
			expect(state.bytes).toBe(bytes);
			const scale = whole.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
			expect(worst(last, whole)).toBeLessThan(64 * 2 ** -24 * scale);

			const halves = [rows(x, 0, 17), rows(x, 17, 40)].map((part) => {
				const half = layer.initialState({ batch: 2 });
				layer.forward(part, half);
				return half;
			}) as [State, State];
			const merged = halves[0].merge(halves[1]);
			expect(worst(await layer.forward(rows(x, 40, 41), merged).read(), whole)).toBeLessThan(64 * 2 ** -24 * scale);
		});

		test('wrong use: one clear error, and the layer still works', async () => {
			using layer = new Aaren({ dim: 8, heads: 2, device });
			const x = tensor(normals(3 * 8), [1, 3, 8], { device });
			const state = layer.initialState({ batch: 2 });
			expect(() => layer.forward(x, state)).toThrow('Aaren.forward: the state is of 2 sequences, expected 1 as in x');
			expect(() => layer.forward(tensor([1, 2], [1, 2], { device }))).toThrow('Aaren.forward: `x` has shape [1, 2], expected [B T C]');
			expect(() => layer.forward(tensor(normals(9), [1, 1, 9], { device }))).toThrow(/shape/);
			expect(() => new Aaren({ dim: 9, heads: 2 })).toThrow('aaren: dim is 9, expected a multiple of heads (2)');
			expect(() => new Block({ dim: 8, heads: 2, mixer: 'mamba' as 'aaren' })).toThrow(
				'Block: mixer is mamba, expected one of aaren, performer, attention',
			);
			state.dispose();
			state.dispose();
			expect(() => layer.forward(x, state)).toThrow(/disposed/);
			expect((await layer.forward(x).read()).every(Number.isFinite)).toBe(true);
		});

		test('100,000 streaming steps leave the bytes where they were', async () => {
			using layer = new Aaren({ dim: 8, heads: 2, device });
			using state = layer.initialState();
			const x = tensor(normals(8), [1, 1, 8], { device });
			const step = () => layer.forward(x, state).dispose();
			for (let i = 0; i < 100; i++) step();
			const before = memory(device);
			const steps = device === 'cpu' ? 100_000 : 1000;
			for (let i = 0; i < steps; i++) {
				step();
				if (i % 5000 === 0) await state.get('u').read();
			}
			await state.get('u').read();
			expect(memory(device).bytes).toBe(before.bytes);
			expect(memory(device).buffers).toBe(before.buffers);
		});
	});
}
