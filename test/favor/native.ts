/** Features as the native operation makes them, and what a simulation says of a number. */
import { noGrad } from '../../lib/autograd.js';
import type { FeatureMap } from '../../lib/ops/favor.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import { Tensor, tensor } from '../../lib/tensor.js';

/** How features come to be: in a chunk, as in training, or a token at a time (native/ops/favor_few.h). */
export type Way = 'chunk' | 'few';

export const ways: readonly Way[] = ['chunk', 'few'];

/** A map, or another Ω with a map's kind. */
export type Drawn = Pick<FeatureMap, 'omega' | 'native'>;

/**
 * √M φ(x) of each x̂ `[D]`: what a state is after that key alone, e^c z. Of no use where ε > 0, which is relative to e^c.
 */
export async function featuresBy(way: Way, map: Drawn, scaled: readonly (readonly number[])[]): Promise<Float64Array[]> {
	const [M, D] = map.omega.shape as [number, number];
	const B = scaled.length;
	const k = tensor(
		scaled.flatMap((x) => x.map((number) => number / map.native.factor)),
		[B, 1, 1, D],
	);
	k.requiresGrad = way === 'chunk';
	const v = tensor(new Float32Array(B), [B, 1, 1, 1]);
	const run = () => linearAttention(k, k, v, { features: map as FeatureMap, causal: true }).state;
	const { c, z } = way === 'chunk' ? run() : noGrad(run);
	const [scales, psi] = [await c.read(), await z.read()];
	return scaled.map((_, b) => Float64Array.from(psi.subarray(b * M, (b + 1) * M), (each) => Math.exp(scales[b]!) * each));
}

/** A kind's map with another Ω `[M, D]`. */
export function withOmega(map: FeatureMap, omega: Float64Array): Drawn {
	return { omega: Tensor.empty([map.features, map.dim], 'cpu', 'f32', Float32Array.from(omega)), native: map.native };
}

/**
 * φ(x)·φ(y) of one block of `rows` rows of Ω after another, each an estimate by itself.
 * @param twice whether each row has two features, half of the features apart; `share`: what a row's part is divided by
 */
export function estimates(x: Float64Array, y: Float64Array, rows: number, twice: boolean, share = 1): Float64Array {
	const distinct = twice ? x.length / 2 : x.length;
	return Float64Array.from({ length: distinct / rows }, (_, block) => {
		let sum = 0;
		for (let j = block * rows; j < (block + 1) * rows; j++) {
			sum += x[j]! * y[j]!;
			if (twice) sum += x[distinct + j]! * y[distinct + j]!;
		}
		return sum / (rows * share);
	});
}

/** The mean of independent numbers, and its standard error. */
export function meanOf(numbers: ArrayLike<number>): { mean: number; error: number } {
	const n = numbers.length;
	let mean = 0;
	for (let i = 0; i < n; i++) mean += numbers[i]! / n;
	let squares = 0;
	for (let i = 0; i < n; i++) squares += (numbers[i]! - mean) ** 2;
	return { mean, error: Math.sqrt(squares / (n - 1) / n) };
}

export const dot = (x: ArrayLike<number>, y: ArrayLike<number>) => Array.from(x).reduce((sum, each, i) => sum + each * y[i]!, 0);
