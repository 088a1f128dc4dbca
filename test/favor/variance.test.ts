/**
 * The variance of features, by simulation through the native operation: one Ω of many blocks, each block an estimate of its own.
 * What is found is the mean of (estimate − e^(x·y))² over the blocks, with the standard error of that mean; it may be SIGMAS of them
 * away from the formula. Formulas: algorithms C.1 (Choromanski et al. 2021, lemma 2 and theorem 2).
 */
import { describe, expect, test } from 'vitest';
import { type FavorKind, favor } from '../../lib/ops/favor.js';
import type { Projection } from '../../lib/ops/omega.js';
import { dot, estimates, featuresBy, meanOf, type Way, ways } from './native.js';

const SIGMAS = 4;
const D = 8;
/** Rows of a block. */
const m = 8;
const BLOCKS = 20_000;

/** x̂ and ŷ: alike, unlike, opposite, and of different lengths. */
const pairs: readonly (readonly [readonly number[], readonly number[]])[] = [
	[
		[0.4, 0.1, -0.2, 0.1, 0, 0.1, 0, -0.1],
		[0.3, 0.2, -0.2, 0, 0.1, 0.1, 0, 0.1],
	],
	[
		[0.5, -0.3, 0, 0.2, 0, 0, 0.1, 0],
		[0, 0.1, 0.4, 0.2, -0.5, 0, 0.2, 0.1],
	],
	[
		[0.4, -0.4, 0.1, 0, 0, 0.2, 0.3, 0],
		[-0.3, 0.3, -0.2, 0.1, 0, -0.2, -0.2, 0.1],
	],
	[
		[0, 0, 0, 0, 0, 0.9, 0, 0],
		[0.1, 0, 0, 0, 0, 0.05, 0, -0.1],
	],
];

interface Theory {
	/** e^(x·y) */
	readonly SM: number;
	readonly trigonometric: number;
	readonly positive: number;
	readonly hyperbolic: number;
	/** Of positive features with orthogonal rows: at most this. */
	readonly orthogonal: number;
}

function theory(x: readonly number[], y: readonly number[]): Theory {
	const SM = Math.exp(dot(x, y));
	const sum = Math.exp(dot(x, x) + dot(y, y) + 2 * dot(x, y));
	const difference = Math.exp(-(dot(x, x) + dot(y, y) - 2 * dot(x, y)));
	const positive = (1 / m) * sum * SM ** 2 * (1 - 1 / sum);
	return {
		SM,
		trigonometric: ((1 / (2 * m)) * sum * (1 - difference) ** 2) / SM ** 2,
		positive,
		hyperbolic: 0.5 * (1 - 1 / sum) * positive,
		orthogonal: positive - ((2 * (m - 1)) / (m * (D + 2))) * (SM - Math.exp(-(dot(x, x) + dot(y, y)) / 2)) ** 2,
	};
}

/** Estimates of each pair, block by block. */
async function simulate(kind: FavorKind, projection: Projection, way: Way): Promise<Float64Array[]> {
	const twice = kind === 'hyperbolic' || kind === 'trigonometric';
	using map = favor({ kind, dim: D, features: (twice ? 2 : 1) * m * BLOCKS, projection, epsilon: 0, seed: 11 });
	const features = await featuresBy(way, map, pairs.flat());
	return pairs.map((_, i) => estimates(features[2 * i]!, features[2 * i + 1]!, m, twice, kind === 'hyperbolic' ? 2 : 1));
}

const squares = (found: Float64Array, SM: number) => meanOf(found.map((each) => (each - SM) ** 2));

describe.each(ways)('features by %s', (way) => {
	test.each([
		['trigonometric', 'trigonometric'],
		['softmax', 'positive'],
		['hyperbolic', 'hyperbolic'],
	] as const)('independent rows, %s: unbiased, with the variance of C.1', async (kind, name) => {
		const found = await simulate(kind, 'iid', way);
		pairs.forEach(([x, y], i) => {
			const { SM, [name]: variance } = theory(x, y);
			expect(found[i]!.length).toBe(BLOCKS);
			const { mean, error } = meanOf(found[i]!);
			expect(Math.abs(mean - SM), `mean of pair ${i}`).toBeLessThanOrEqual(SIGMAS * error);
			const { mean: spread, error: unsure } = squares(found[i]!, SM);
			expect(Math.abs(spread - variance), `${spread} for ${variance}, pair ${i}`).toBeLessThanOrEqual(SIGMAS * unsure);
			expect(unsure).toBeLessThan(0.1 * variance); // or the line above says nothing
		});
	});

	test('orthogonal rows: unbiased, and the variance is at most its bound', async () => {
		const found = await simulate('softmax', 'orthogonal', way);
		let clear = 0;
		pairs.forEach(([x, y], i) => {
			const { SM, positive, orthogonal } = theory(x, y);
			const { mean, error } = meanOf(found[i]!);
			expect(Math.abs(mean - SM), `mean of pair ${i}`).toBeLessThanOrEqual(SIGMAS * error);
			const { mean: spread, error: unsure } = squares(found[i]!, SM);
			expect(spread, `pair ${i}, bound ${orthogonal}`).toBeLessThanOrEqual(orthogonal + SIGMAS * unsure);
			if (spread < positive - SIGMAS * unsure) clear++;
		});
		expect(clear, 'pairs whose variance is clearly below that of independent rows').toBeGreaterThanOrEqual(2);
	});

	test('hyperbolic features vary less than as many positive ones', async () => {
		// Two blocks of positive features together have as many as one of hyperbolic ones.
		const [positive, hyperbolic] = [await simulate('softmax', 'iid', way), await simulate('hyperbolic', 'iid', way)];
		pairs.forEach(([x, y], i) => {
			const { SM } = theory(x, y);
			const two = Float64Array.from({ length: BLOCKS / 2 }, (_, j) => (positive[i]![2 * j]! + positive[i]![2 * j + 1]!) / 2);
			const [a, b] = [squares(hyperbolic[i]!, SM), squares(two, SM)];
			expect(a.mean, `pair ${i}`).toBeLessThan(b.mean - SIGMAS * Math.hypot(a.error, b.error));
		});
	});
});
