/** Causal to the bit: what comes at t or later, whatever it is, changes no bit of what came before. */
import { afterEach, describe, expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { type DeviceName, devices, setThreads } from '../../lib/device.js';
import { type FavorKind, type FeatureMap, favor, favorKinds } from '../../lib/ops/favor.js';
import * as ops from '../../lib/ops/index.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import { type Tensor, tensor } from '../../lib/tensor.js';
import { generator, isSlow, uniform } from '../harness.js';

afterEach(() => setThreads(0));

const [B, H, G, D, E, M] = [3, 4, 2, 5, 7, 20];

interface Inputs {
	readonly q: Float32Array;
	readonly k: Float32Array;
	readonly v: Float32Array;
}

function draw(T: number, seed: number): Inputs {
	const random = generator(seed);
	const numbers = (shape: readonly number[]) => uniform(shape, random, 1.5).data as Float32Array;
	return { q: numbers([B, T, H, D]), k: numbers([B, T, G, D]), v: numbers([B, T, G, E]) };
}

/** The same before t; from t on, each kind of trouble in turn: token t + i gets the i-th. */
function spoilt({ q, k, v }: Inputs, T: number, t: number, trouble: readonly number[]): Inputs {
	const change = (numbers: Float32Array) => {
		const width = numbers.length / (B * T);
		return numbers.map((each, i) => {
			const at = Math.floor(i / width) % T;
			return at < t ? each : each * trouble[(at - t) % trouble.length]!;
		});
	};
	return { q: change(q), k: change(k), v: change(v) };
}

/** What tokens become: other numbers, NaN, infinite, of such norms that their features are nothing, or that their squares overflow. */
const troubles = [[-0.7, 0, 2], [Number.NaN], [Number.POSITIVE_INFINITY], [300, -1e4], [1e15, 1e25, -3e37]];

/** The bits of outputs [B, T, H, E] at tokens before t. */
function bits(o: Float32Array, T: number, t: number): Buffer {
	const token = 4 * H * E;
	const before = (b: number) => Buffer.from(o.buffer, o.byteOffset + b * T * token, t * token);
	return Buffer.concat(Array.from({ length: B }, (_, b) => before(b)));
}

/** A state that such a map could have left, and lengths with one that ends in the middle. */
function surroundings(features: FeatureMap, T: number, device: DeviceName) {
	const keys = draw(11, 4);
	const [k, v] = [tensor(keys.k, [B, 11, G, D], { device }), tensor(keys.v, [B, 11, G, E], { device })];
	const { state } = noGrad(() => linearAttention(k, k, v, { features, causal: true }));
	return { state, lengths: ops.lengths([T, Math.ceil(T / 2), T], device) };
}

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const run = ({ q, k, v }: Inputs, T: number, options: Parameters<typeof linearAttention>[3], training = false) => {
		const tensors = [tensor(q, [B, T, H, D], { device }), tensor(k, [B, T, G, D], { device }), tensor(v, [B, T, G, E], { device })];
		for (const each of tensors) each.requiresGrad = training;
		return linearAttention(tensors[0]!, tensors[1]!, tensors[2]!, options).o;
	};

	// 70 tokens: borders of chunks at 32 and 64. 8 tokens: the way of few.
	const places = isSlow(device) ? { 8: [3], 40: [32] } : { 8: [1, 2, 5, 7], 9: [8], 70: [1, 8, 9, 31, 32, 33, 63, 64, 65, 69] };

	test.each(favorKinds)('%s: outputs keep their bits', async (kind) => {
		using features = favor({ kind, dim: D, features: M, seed: 3, device });
		for (const threads of [1, 2]) {
			setThreads(threads);
			for (const [length, cuts] of Object.entries(places)) {
				const T = Number(length);
				const inputs = draw(T, T);
				for (const around of [{}, surroundings(features, T, device)]) {
					for (const training of [false, true]) {
						const options = { features, causal: true, ...around };
						const whole = await run(inputs, T, options, training).read();
						expect(whole.every(Number.isFinite)).toBe(true);
						for (const t of cuts) {
							for (const trouble of troubles) {
								const found = await run(spoilt(inputs, T, t, trouble), T, options, training).read();
								const same = bits(found, T, t).equals(bits(whole, T, t));
								expect(same, `T = ${T}, from ${t} on times ${trouble}, ${threads} threads`).toBe(true);
							}
						}
						if (training) continue;
						// What is not there is no different.
						const t = cuts.at(-1)!;
						const shorter = ops.lengths([t, t, t], device);
						const found = await run(inputs, T, { ...options, lengths: shorter }).read();
						if (!('lengths' in around)) expect(bits(found, T, t).equals(bits(whole, T, t)), `${t} of ${T} tokens`).toBe(true);
					}
				}
			}
		}
	});

	test.each(['softmax', 'relu'] as const satisfies readonly FavorKind[])(
		'%s: a later token changes what was before, without `causal`',
		async (kind) => {
			using features = favor({ kind, dim: D, features: M, seed: 3, device });
			const inputs = draw(40, 1);
			const one = await run(inputs, 40, { features }).read();
			const other = await run(spoilt(inputs, 40, 39, [-0.7]), 40, { features }).read();
			expect(bits(one, 40, 32).equals(bits(other, 40, 32))).toBe(false);
		},
	);

	test.each(favorKinds)(
		'%s: a loss of what came before brings later tokens exactly no gradient, and earlier ones the same bits',
		async (kind) => {
			const T = isSlow(device) ? 34 : 70;
			using features = favor({ kind, dim: D, features: M, seed: 3, device });
			const gradients = async ({ q, k, v }: Inputs, t: number) => {
				const tensors = [tensor(q, [B, T, H, D], { device }), tensor(k, [B, T, G, D], { device }), tensor(v, [B, T, G, E], { device })];
				for (const each of tensors) each.requiresGrad = true;
				const { o } = linearAttention(tensors[0]!, tensors[1]!, tensors[2]!, { features, causal: true });
				ops.sum(ops.reshape(ops.slice(o, 1, 0, t), [B * t * H * E]), 0).backward();
				return Promise.all(tensors.map(({ grad }: Tensor) => grad!.read()));
			};
			for (const t of [3, 32, 33]) {
				const inputs = draw(T, T);
				const [one, other] = [await gradients(inputs, t), await gradients(spoilt(inputs, T, t, [-0.7, 0, 2]), t)];
				one.forEach((gradient, which) => {
					const width = gradient.length / (B * T);
					for (let i = 0; i < gradient.length; i++) {
						const at = Math.floor(i / width) % T;
						if (at >= t) expect(Math.abs(gradient[i]!), `${'qkv'[which]} at ${at}, loss before ${t}`).toBe(0);
						else if (gradient[i] !== other[which]![i]) expect.fail(`${'qkv'[which]} at ${at} is ${gradient[i]} and ${other[which]![i]}`);
					}
				});
			}
		},
	);
});
