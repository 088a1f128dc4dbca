/**
 * One description of an operation (test/ops/*.ts) says everything that its tests and its benchmark need: forward check,
 * gradient check, the same to the bit, on every device (test/checks.ts).
 */
import type { DeviceName } from '../lib/device.js';
import { count } from '../lib/dims.js';
import { Tensor } from '../lib/tensor.js';

/** Sizes of a case; the numbers beside them are its switches (0 or 1). */
export type Sizes = Readonly<Record<string, number>>;

/** 64-bit for the exact answer, 32-bit for the naive one. */
export type Floats = Float64Array | Float32Array;

export interface Input {
	readonly shape: readonly number[];
	/** Int32Array: an i32 tensor. */
	readonly data: Float32Array | Int32Array;
	/** Whether it has a gradient. @default true for Float32Array */
	readonly differentiable?: boolean;
}

export type Named<T> = Readonly<Record<string, T>>;

/** Arrays of one precision. */
export interface Precision {
	/** Zeros. */
	zeros(n: number): Floats;
	/** These numbers, rounded. */
	of(values: Iterable<number>): Floats;
}
export interface Subject {
	readonly name: string;
	readonly cases: readonly Sizes[];
	/** @param random uniform in [−1, 1) */
	inputs(sizes: Sizes, random: () => number): Named<Input>;
	/** The operation: its results by name. */
	run(inputs: Named<Tensor>, sizes: Sizes): Named<Tensor>;
	/**
	 * The definition, as plain loops. Every number that is kept lives in an array that `precision` made; Int32Array inputs come
	 * as they are. `held` are results at the point where a derivative is taken, for those that count as constants.
	 */
	reference(sizes: Sizes, inputs: Named<Floats>, precision: Precision, held?: Named<Floats>): Named<Floats>;
	/** Gradients of inputs by name, from those of results: the chain rule as plain loops. Left out: not differentiable. */
	gradient?(sizes: Sizes, inputs: Named<Floats>, g: Named<Floats>, precision: Precision): Named<Floats>;
	/** Results that bring no gradient (scan's m: a shift of the state, not a part of what it means). */
	readonly constants?: readonly string[];
	/** Not smooth: its gradient is defined, not derived (cast), so it is not held against differences. */
	readonly straightThrough?: boolean;
	/** Where another number of threads may add in another order. Runs with the same number are always the same. */
	threadsMatter?(sizes: Sizes): boolean;
	/** Bytes that must be moved at least: every input read once, every result written once. */
	bytes(sizes: Sizes): number;
	/** Floating point operations, a multiply-add counted as two. */
	operations(sizes: Sizes): number;
	/** Sizes worth timing. */
	readonly benchmarks: readonly Sizes[];
}

/** One seed, one sequence: failures repeat. Uniform in [−1, 1), a multiple of 2⁻²³. */
export function generator(seed: number): () => number {
	let state = seed | 0;
	return () => {
		state = (state + 0x6d2b79f5) | 0;
		let x = Math.imul(state ^ (state >>> 15), 1 | state);
		x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
		return ((x ^ (x >>> 14)) >>> 8) / 2 ** 23 - 1;
	};
}

/** An input of random numbers. */
export function uniform(shape: readonly number[], random: () => number, factor = 1, offset = 0): Input {
	return { shape, data: Float32Array.from({ length: count(shape) }, () => offset + factor * random()) };
}

export function title(sizes: Sizes): string {
	return Object.entries(sizes)
		.map(([name, size]) => `${name}=${size}`)
		.join(' ');
}

/** The worst |a − b|; infinite where exactly one of them is not finite, or both are and differ. */
export function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
	if (a.length !== b.length) throw new Error(`${a.length} numbers, expected ${b.length}`);
	let most = 0;
	for (let i = 0; i < a.length; i++) {
		if (Object.is(a[i], b[i]) || a[i] === b[i]) continue;
		const distance = Math.abs(a[i]! - b[i]!);
		if (!(distance < Infinity)) return Infinity;
		if (distance > most) most = distance;
	}
	return most;
}

/** The largest finite |x|. */
export function largest(x: ArrayLike<number>): number {
	let most = 0;
	for (let i = 0; i < x.length; i++) if (Math.abs(x[i]!) < Infinity) most = Math.max(most, Math.abs(x[i]!));
	return most;
}

/** Half a unit in the last place of f32, relative. */
export const rounding = 2 ** -24;

/**
 * How far two orders of the same sums may be apart: both round once a token and once a result, so at most 2 · (T + 2) roundings
 * of the largest number; in u and w, numbers grow with the tokens, so the largest number is the last.
 */
export const apart = (T: number, scale: number) => 2 * (T + 2) * rounding * scale;

/** A description's sizes made small enough for an emulated device: cases with more operations than this are left to others. */
export const slowOperations = 100_000;

/** Whether a device is emulated: the kernels run on the CPU, thousands of times slower than on a GPU. */
export function isSlow(device: string): boolean {
	return device !== 'cpu' && process.env.OPLUS_CUDA_LIBRARY !== undefined;
}

export function mapValues<T, R>(of: Named<T>, change: (value: T, name: string) => R): Record<string, R> {
	return Object.fromEntries(Object.entries(of).map(([name, value]) => [name, change(value, name)]));
}

export function tensorsOf(inputs: Named<Input>, device: DeviceName, requiresGrad = false): Record<string, Tensor> {
	return mapValues(inputs, ({ shape, data, differentiable = true }) => {
		const floats = data instanceof Float32Array;
		const tensor = Tensor.empty(shape, device, floats ? 'f32' : 'i32', data);
		tensor.requiresGrad = requiresGrad && floats && differentiable;
		return tensor;
	});
}
