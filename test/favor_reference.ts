/** Features as native/ops/favor.h defines them, in plain loops: every number that is kept lives in an array of the precision. */
import type { FavorKind, FavorOptions } from '../lib/ops/favor.js';
import { drawOmega } from '../lib/ops/omega.js';
import type { Floats, Precision } from './harness.js';

/** Ω as the device holds it. */
export function omegaOf({ kind = 'softmax', dim, features = 256, projection = 'orthogonal', seed = 0 }: FavorOptions): Float32Array {
	const twice = kind === 'hyperbolic' || kind === 'trigonometric';
	const rows = drawOmega(twice ? features / 2 : features, dim, { projection, regularised: kind === 'regularised', seed, draw: 0 });
	return Float32Array.from(twice ? [...rows, ...rows.map((x) => (kind === 'hyperbolic' ? -x : x))] : rows);
}

/** The normal distribution, by its series (Abramowitz & Stegun 26.2.10), good to double precision for |x| < 6. */
function normal(x: number): number {
	let term = x;
	let sum = x;
	for (let n = 1; Math.abs(term) > 1e-18; n++) {
		term *= -(x * x) / (2 * n);
		sum += term / (2 * n + 1);
	}
	return 0.5 + sum / Math.sqrt(2 * Math.PI);
}

const density = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

/** f and f′ of the generalised kinds. */
export const functions: Record<string, readonly [(a: number) => number, (a: number) => number]> = {
	relu: [(a) => Math.max(a, 0), (a) => (a > 0 ? 1 : 0)],
	sigmoid: [(a) => 1 / (1 + Math.exp(-a)), (a) => Math.exp(-a) / (1 + Math.exp(-a)) ** 2],
	exp: [Math.exp, Math.exp],
	abs: [Math.abs, Math.sign],
	gelu: [(a) => a * normal(a), (a) => normal(a) + a * density(a)],
	cos: [Math.cos, (a) => -Math.sin(a)],
	tanh: [Math.tanh, (a) => 1 - Math.tanh(a) ** 2],
	identity: [(a) => a, () => 1],
	elu: [(a) => (a > 0 ? a + 1 : Math.exp(a)), (a) => (a > 0 ? 1 : Math.exp(a))],
};

export interface Features {
	/** x̂ `[D]` */
	readonly x: Floats;
	/** `[M]` */
	readonly psi: Floats;
	/** ψ′ by a, `[M]` */
	readonly slope: Floats;
	/** ℓ `[1]` */
	readonly scale: Floats;
	/** dℓ = sign · x̂ · dx̂ */
	readonly sign: number;
}

/** Features of the token at `from` of `tokens`. */
export function featuresOf(
	kind: FavorKind,
	omega: Float32Array,
	epsilon: number,
	tokens: Floats,
	from: number,
	D: number,
	precision: Precision,
): Features {
	const M = omega.length / D;
	const x = precision.zeros(D);
	const a = precision.zeros(M);
	const psi = precision.zeros(M);
	const slope = precision.zeros(M);
	const scale = precision.zeros(1);
	const half = precision.zeros(1);
	const factor = precision.of([D ** -0.25]);
	for (let d = 0; d < D; d++) {
		x[d] = tokens[from + d]! * factor[0]!;
		half[0] = half[0]! + (x[d]! * x[d]!) / 2;
	}
	let top = -Infinity;
	for (let m = 0; m < M; m++) {
		for (let d = 0; d < D; d++) a[m] = a[m]! + omega[m * D + d]! * x[d]!;
		top = Math.max(top, a[m]!);
	}
	const exponential = ['softmax', 'hyperbolic', 'regularised'].includes(kind);
	for (let m = 0; m < M; m++) {
		if (exponential) {
			a[m] = a[m]! - top;
			slope[m] = Math.exp(a[m]!);
			psi[m] = slope[m]! + epsilon;
		} else if (kind === 'trigonometric') {
			const [wave, other] = 2 * m >= M ? [Math.sin, Math.cos] : [Math.cos, (y: number) => -Math.sin(y)];
			psi[m] = wave(a[m]!);
			slope[m] = other(a[m]!);
		} else {
			const [f, rise] = functions[kind]!;
			psi[m] = f(a[m]!) + epsilon;
			slope[m] = rise(a[m]!);
		}
	}
	if (exponential) scale[0] = top - half[0]!;
	else if (kind === 'trigonometric') scale[0] = half[0]!;
	return { x, psi, slope, scale, sign: exponential ? -1 : kind === 'trigonometric' ? 1 : 0 };
}
