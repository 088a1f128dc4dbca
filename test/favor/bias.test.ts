/**
 * What features estimate, on average: e^(x·y) with the library's draw of Ω; something else with the Q of a textbook's QR, whose
 * first row always points the same way; and less with rows of one length. Means are over blocks of D rows of one Ω, each an estimate
 * of its own, and may be SIGMAS of their standard errors away from what they should be.
 */
import { describe, expect, test } from 'vitest';
import { favor } from '../../lib/ops/favor.js';
import { drawOmega } from '../../lib/ops/omega.js';
import { Random } from '../../lib/random.js';
import { dot, estimates, featuresBy, meanOf, ways, withOmega } from './native.js';

const SIGMAS = 4;
const D = 8;
const BLOCKS = 20_000;

/** z = x̂ + ŷ, x̂ = ŷ, along the first axis, with ‖z‖² = 2. */
const along = (sign: number) => Array.from({ length: D }, (_, d) => (d === 0 ? sign * Math.SQRT1_2 : 0));

/** Q of a Gaussian matrix [D, D] by Householder's reflections, as LAPACK's xGEQRF leaves it: no sign of R is looked at. */
function householder(random: Random): number[][] {
	const A = Array.from({ length: D }, () => Array.from({ length: D }, () => random.normal()));
	const Q = A.map((_, i) => A.map((_, j) => Number(i === j)));
	for (let k = 0; k + 1 < D; k++) {
		const v = A.map((row, i) => (i < k ? 0 : row[k]!));
		v[k]! += Math.sign(v[k]!) * Math.sqrt(dot(v, v));
		const length = dot(v, v);
		for (let j = 0; j < D; j++) {
			const part = (2 * v.reduce((sum, each, i) => sum + each * A[i]![j]!, 0)) / length;
			for (let i = 0; i < D; i++) A[i]![j]! -= part * v[i]!;
		}
		for (const row of Q) {
			const part = (2 * dot(row, v)) / length;
			for (let j = 0; j < D; j++) row[j]! -= part * v[j]!;
		}
	}
	return Q;
}

/** Ω of blocks whose rows are columns of Q, with χ lengths. */
function withoutSignFix(): Float64Array {
	const random = new Random(3);
	const omega = new Float64Array(BLOCKS * D * D);
	for (let block = 0; block < BLOCKS; block++) {
		const Q = householder(random);
		for (let j = 0; j < D; j++) {
			const length = Math.hypot(...Array.from({ length: D }, () => random.normal()));
			for (let d = 0; d < D; d++) omega[(block * D + j) * D + d] = length * Q[d]![j]!;
		}
	}
	return omega;
}

/** The normal distribution (Abramowitz & Stegun 26.2.10). */
function normal(x: number): number {
	let term = x;
	let sum = x;
	for (let n = 1; n < 60; n++) {
		term *= -(x * x) / (2 * n);
		sum += term / (2 * n + 1);
	}
	return 0.5 + sum / Math.sqrt(2 * Math.PI);
}

/** E e^(ω·z) / e^(‖z‖² / 2) for ω of length √d in a random direction: ₀F₁(d/2; d ‖z‖² / 4) by its series. */
function ofOneLength(d: number, squares: number): number {
	let term = 1;
	let sum = 1;
	for (let k = 0; k < 60; k++) {
		term *= (d * squares) / 4 / ((k + 1) * (d / 2 + k));
		sum += term;
	}
	return sum / Math.exp(squares / 2);
}

describe.each(ways)('features by %s', (way) => {
	const map = favor({ dim: D, features: D * BLOCKS, epsilon: 0, seed: 2 });
	const ratios = async (drawn: Parameters<typeof featuresBy>[1]) => {
		const features = await featuresBy(way, drawn, [along(1), along(-1)]);
		return features.map((x) => meanOf(estimates(x, x, D, false).map((each) => each / Math.exp(0.5))));
	};

	test('the library’s orthogonal rows are unbiased along ±e₁', async () => {
		for (const { mean, error } of await ratios(map)) {
			expect(error).toBeLessThan(0.01);
			expect(Math.abs(mean - 1)).toBeLessThanOrEqual(SIGMAS * error);
		}
	});

	test('those of a QR without the sign fix are not: 0.895 and 1.111 were measured by others', async () => {
		// The first of 8 rows has a negative first coordinate, −|g| with g normal: E e^(−s|g|) = 2 Φ(−s) e^(s²/2). The others have no bias.
		const found = await ratios(withOmega(map, withoutSignFix()));
		[-1, 1].forEach((sign, i) => {
			const { mean, error } = found[i]!;
			expect(Math.abs(mean - (D - 1 + 2 * normal(sign * Math.SQRT2)) / D)).toBeLessThanOrEqual(SIGMAS * error);
			expect(Math.abs(mean - [0.895, 1.111][i]!)).toBeLessThanOrEqual(SIGMAS * Math.hypot(error, [0.004, 0.005][i]!));
			expect(Math.abs(mean - 1)).toBeGreaterThan(10 * error);
		});
	});
});

test('no direction of a block is preferred: every row’s first coordinate is as often positive as negative', () => {
	const omega = drawOmega(D * BLOCKS, D, { projection: 'orthogonal', regularised: false, seed: 8, draw: 0 });
	for (let row = 0; row < D; row++) {
		for (let d = 0; d < D; d++) {
			const { mean, error } = meanOf(Float64Array.from({ length: BLOCKS }, (_, block) => omega[(block * D + row) * D + d]!));
			expect(Math.abs(mean), `row ${row}, coordinate ${d}`).toBeLessThanOrEqual(5 * error); // the worst of 64: 5 sigmas
		}
	}
});

test.each([4, 8, 16])('regularised rows are biased low, by what theory says (D = %i)', async (dim) => {
	const blocks = 160_000 / dim;
	const map = favor({ kind: 'regularised', dim, features: dim * blocks, epsilon: 0, seed: 4 });
	const x = Array.from({ length: dim }, (_, d) => (d % 2 ? 1 : -1) * Math.SQRT1_2 * dim ** -0.5); // ‖z‖² = 2
	const [features] = await featuresBy('few', map, [x]);
	const { mean, error } = meanOf(estimates(features!, features!, dim, false).map((each) => each / Math.exp(0.5)));
	expect(Math.abs(mean - ofOneLength(dim, 2))).toBeLessThanOrEqual(SIGMAS * error);
	expect(mean).toBeLessThan(1 - SIGMAS * error);
	expect(mean).toBeGreaterThan(1 - 2 * dim ** (-1 / 3));
});
