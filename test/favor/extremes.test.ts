/** Large norms, scores of ±80, features that underflow, and sizes at their ends: an answer that means something, never NaN. */
import { describe, expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { type DeviceName, devices } from '../../lib/device.js';
import { type FavorKind, type FeatureMap, favor, favorKinds } from '../../lib/ops/favor.js';
import * as ops from '../../lib/ops/index.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import { type Tensor, tensor } from '../../lib/tensor.js';
import { checkForward, checkGradient } from '../checks.js';
import { apart, generator, isSlow, largest, uniform, worst } from '../harness.js';
import { subject } from '../ops/linear_attention.js';

interface Size {
	readonly B: number;
	readonly T: number;
	readonly H: number;
	readonly G: number;
	readonly D: number;
	readonly E: number;
}

/** Features that cannot be negative, so that an output lies between the smallest and the largest value. */
const positive: readonly FavorKind[] = ['softmax', 'hyperbolic', 'regularised', 'relu', 'sigmoid', 'exp', 'abs', 'elu'];
const exponential: readonly FavorKind[] = ['softmax', 'hyperbolic', 'regularised'];

const usual: Size = { B: 1, T: 40, H: 2, G: 1, D: 8, E: 5 };

function inputs({ B, T, H, G, D, E }: Size, device: DeviceName, size: number): { q: Tensor; k: Tensor; v: Tensor } {
	const random = generator(2);
	const make = (shape: readonly number[], factor: number) => tensor(uniform(shape, random, factor).data as Float32Array, shape, { device });
	return { q: make([B, T, H, D], size), k: make([B, T, G, D], size), v: make([B, T, G, E], 1) };
}

/** Every way that a sequence can go: at once, one by one, with gradients, without a mask. */
async function everyWay({ q, k, v }: { q: Tensor; k: Tensor; v: Tensor }, features: FeatureMap): Promise<Record<string, Float32Array>> {
	const T = q.shape[1]!;
	const one = noGrad(() => {
		let state: ReturnType<typeof linearAttention>['state'] | undefined;
		const parts = Array.from({ length: T }, (_, t) => {
			const at = (x: Tensor) => ops.slice(x, 1, t, t + 1);
			const step = linearAttention(at(q), at(k), at(v), { features, causal: true, state });
			state = step.state;
			return step.o;
		});
		return { o: ops.concat(parts, 1), ...state! };
	});
	const found: Record<string, Float32Array> = { 'one by one': await one.o.read(), z: await one.z.read(), S: await one.S.read() };
	for (const causal of [true, false]) {
		for (const x of [q, k, v]) [x.requiresGrad, x.grad] = [true, null];
		const { o, state } = linearAttention(q, k, v, { features, causal });
		ops.sum(ops.reshape(o, [o.size]), 0).backward();
		const name = causal ? 'causal' : 'both ways';
		found[name] = await o.read();
		found[`z ${name}`] = await state.z.read();
		found[`dq ${name}`] = await q.grad!.read();
		found[`dk ${name}`] = await k.grad!.read();
		found[`dv ${name}`] = await v.grad!.read();
	}
	return found;
}

const three = ({ q, k, v }: { q: Tensor; k: Tensor; v: Tensor }) => [q, k, v] as const;

function holdFinite(found: Readonly<Record<string, Float32Array>>): void {
	for (const [name, numbers] of Object.entries(found))
		expect(
			numbers.findIndex((x) => !Number.isFinite(x)),
			name,
		).toBe(-1);
}

/** Averages of values cannot leave their range, but for what 2⁻²⁴ a feature and token lets them. */
function holdBetween(found: Readonly<Record<string, Float32Array>>, v: Float32Array, M: number, T: number): void {
	for (const name of ['causal', 'both ways', 'one by one'])
		expect(largest(found[name]!), name).toBeLessThanOrEqual(largest(v) * (1 + 2 ** -24 * (M + T)));
}

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const size = isSlow(device) ? { ...usual, T: 9 } : usual;

	test.each(favorKinds)('%s: scores of ±80', async (kind) => {
		// q·k / √D = ±80, keys along and against the queries.
		const { q, k, v } = inputs(size, device, 1);
		const [a, b] = [await q.read(), await k.read()];
		const length = Math.sqrt(80 * Math.sqrt(size.D));
		const aim = (x: Float32Array) => {
			for (let i = 0; i < x.length; i += size.D)
				x.set(
					Array.from({ length: size.D }, (_, d) => (d === 0 ? length * Math.sign(x[i]!) : 0)),
					i,
				);
		};
		aim(a);
		aim(b);
		using features = favor({ kind, dim: size.D, features: 24, device });
		const found = await everyWay({ q: tensor(a, q.shape, { device }), k: tensor(b, k.shape, { device }), v }, features);
		holdFinite(found);
		if (positive.includes(kind)) holdBetween(found, await v.read(), 24, size.T);
	});

	test.each(exponential.flatMap((kind) => [10, 1e3, 1e6, 1e12, 1e18, 1e22].map((norm) => [kind, norm] as const)))(
		'%s: norms of %s, with ε and without',
		async (kind, norm) => {
			const tensors = inputs(size, device, norm);
			for (const epsilon of [0, 1e-6]) {
				using features = favor({ kind, dim: size.D, features: 20, epsilon, device });
				const found = await everyWay(tensors, features);
				holdFinite(found);
				holdBetween(found, await tensors.v.read(), 20, size.T);
			}
		},
	);

	test('keys of which nothing is left weigh nothing, and those after them what they should', async () => {
		// ‖k̂‖² overflows at the first tokens: their scale is −∞.
		const { q, k, v } = inputs(size, device, 1);
		const [keys, width] = [await k.read(), size.G * size.D];
		for (let i = 0; i < 3 * width; i++) keys[i] = 1e22 * Math.sign(keys[i]!);
		using features = favor({ dim: size.D, features: 20, device });
		const found = await everyWay({ q, k: tensor(keys, k.shape, { device }), v }, features);
		holdFinite(found);
		const rest = (x: Tensor) => noGrad(() => ops.slice(x, 1, 3, size.T));
		const alone = await everyWay({ q: rest(q), k: rest(k), v: rest(v) }, features);
		for (const name of ['causal', 'one by one']) {
			const start = 3 * size.H * size.E;
			expect(
				[...found[name]!.subarray(0, start)].every((x) => x === 0),
				name,
			).toBe(true);
			const scale = largest(alone[name]!);
			expect(worst(found[name]!.subarray(start), alone[name]!), name).toBeLessThanOrEqual(apart(20 + size.T, scale));
		}
		expect([...found['dk causal']!.subarray(0, 3 * width)].every((x) => x === 0)).toBe(true);
	});

	test('without ε, features of queries and keys that never meet give 0, and at the border of f32 a number', async () => {
		// Ω is the identity: a query along one axis and a key along the other have features e^−x, 1 and 1, e^−x.
		using features = favor({ dim: 2, features: 2, projection: 'none', epsilon: 0, device });
		const factor = features.native.factor;
		for (let x = 20; x < 120; x += 0.25) {
			const at = (axis: number) =>
				tensor(
					[...Array(9)].flatMap(() => (axis ? [0, x / factor] : [x / factor, 0])),
					[1, 9, 1, 2],
					{ device },
				);
			const found = await everyWay({ q: at(0), k: at(1), v: tensor(new Float32Array(9).fill(0.75), [1, 9, 1, 1], { device }) }, features);
			holdFinite(found);
			for (const name of ['causal', 'both ways', 'one by one']) {
				for (const o of found[name]!) {
					if (x > 90) expect(o, `${name}, ${x}`).toBe(0);
					else if (x < 85) expect(Math.abs(o - 0.75), `${name}, ${x}`).toBeLessThanOrEqual(apart(9, 1));
					else expect(Math.abs(o), `${name}, ${x}`).toBeLessThanOrEqual(1.5);
				}
			}
		}
	});

	test('nothing: no tokens, no sequences, lengths of 0', async () => {
		using features = favor({ dim: size.D, features: 20, device });
		const { state } = linearAttention(...three(inputs({ ...size, B: 2 }, device, 1)), { features, causal: true });
		for (const causal of [false, true]) {
			for (const [B, T] of [
				[2, 0],
				[0, 5],
				[0, 0],
			] as const) {
				const tensors = inputs({ ...size, B, T }, device, 1);
				for (const x of Object.values(tensors)) x.requiresGrad = true;
				const made = linearAttention(...three(tensors), { features, causal });
				expect(made.o.shape).toEqual([B, T, size.H, size.E]);
				expect(await made.state.c.read()).toEqual(new Float32Array(B * size.G).fill(-Infinity));
				expect(await made.state.z.read()).toEqual(new Float32Array(B * size.G * 20));
				const total = ops.sum(ops.reshape(made.state.S, [made.state.S.size]), 0);
				total.backward();
				expect((await tensors.k.grad!.read()).length).toBe(tensors.k.size);
			}
		}
		const none = inputs({ ...size, B: 2, T: 0 }, device, 1);
		const after = linearAttention(...three(none), { features, causal: true, state }).state;
		const all = inputs({ ...size, B: 2 }, device, Number.NaN);
		const past = linearAttention(...three(all), { features, causal: true, state, lengths: ops.lengths([0, 0], device) });
		expect((await past.o.read()).every((x) => x === 0)).toBe(true);
		for (const name of ['c', 'z', 'S'] as const) {
			expect(await after[name].read()).toEqual(await state[name].read());
			expect(await past.state[name].read()).toEqual(await state[name].read());
		}
	});

	// Sizes beside those of vectors (4, 8, 16), blocks of features (16) and panels (32).
	test.each([
		{ D: 1, E: 1, M: 1 },
		{ D: 1, E: 40, M: 16 },
		{ D: 2, E: 31, M: 15 },
		{ D: 3, E: 32, M: 17 },
		{ D: 17, E: 33, M: 31 },
		{ D: 33, E: 2, M: 49 },
	])('sizes: %o', async (odd) => {
		for (const T of isSlow(device) ? [3] : [3, 37]) {
			const sizes = { B: 2, T, H: 2, G: 1, ...odd, kind: 0, causal: 1, epsilon: 1, state: 1, lengths: 1 };
			await checkForward(subject, sizes, device);
			await checkForward(subject, { ...sizes, causal: 0, state: 0 }, device);
			await checkGradient(subject, sizes, device);
		}
	});
});
