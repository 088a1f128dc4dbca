/** Linear attention beside exact attention: the error falls as 1/√M, and orthogonal rows have less of it than independent ones. */
import { describe, expect, test } from 'vitest';
import { attend } from '../../lib/ops/attend.js';
import { type FavorKind, favor } from '../../lib/ops/favor.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import type { Projection } from '../../lib/ops/omega.js';
import { tensor } from '../../lib/tensor.js';
import { generator, uniform } from '../harness.js';
import { meanOf } from './native.js';

const [B, T, D] = [4, 48, 16];
const DRAWS = 60;
/** How far an exponent may be from −½: four standard errors of it (0.006), and a little for 1/M beside 1/√M. */
const SLOPE = 0.03;
const SIGMAS = 4;

const random = generator(9);
// Short queries and keys: where scores are large, the error of few features is not yet that of a mean.
const [q, k, v] = [0.4, 0.4, 1].map((size) => tensor(uniform([B, T, 1, D], random, size).data as Float32Array, [B, T, 1, D]));

/** The mean squared error of outputs for each M, over draws, with its standard error. */
async function errors(kind: FavorKind, projection: Projection, causal: boolean, counts: readonly number[]) {
	const exact = await attend(q!, k!, v!, { causal }).read();
	const found: { mean: number; error: number }[] = [];
	for (const M of counts) {
		using features = favor({ kind, dim: D, features: M, projection, seed: M + (projection === 'iid' ? 1 : 0) });
		const squares: number[] = [];
		for (let draw = 0; draw < DRAWS; draw++, features.redraw()) {
			const { o } = linearAttention(q!, k!, v!, { features, causal });
			const numbers = await o.read();
			squares.push(numbers.reduce((sum, each, i) => sum + (each - exact[i]!) ** 2, 0) / numbers.length);
		}
		found.push(meanOf(squares));
	}
	return found;
}

/** The slope of ln √error over ln M, by least squares, and its standard error. */
function slopeOf(counts: readonly number[], found: readonly { mean: number; error: number }[]) {
	const x = counts.map(Math.log);
	const centre = x.reduce((a, b) => a + b) / x.length;
	const spread = x.reduce((sum, each) => sum + (each - centre) ** 2, 0);
	let [slope, variance] = [0, 0];
	found.forEach(({ mean, error }, i) => {
		slope += ((x[i]! - centre) * Math.log(mean)) / 2 / spread;
		variance += (((x[i]! - centre) / spread) * (error / mean / 2)) ** 2;
	});
	return { slope, error: Math.sqrt(variance) };
}

describe.each([false, true])('causal: %s', (causal) => {
	// Whole blocks of D rows: half of one gains less from being orthogonal. Two kinds have two features a row.
	test.each([
		['softmax', [16, 32, 64, 128, 256, 512, 1024]],
		['hyperbolic', [32, 64, 128, 256, 512, 1024]],
		['trigonometric', [32, 64, 128, 256, 512, 1024]],
	] as const)('%s: the error falls as 1/√M, orthogonal rows below independent ones', async (kind, counts) => {
		const orthogonal = await errors(kind, 'orthogonal', causal, counts);
		const independent = await errors(kind, 'iid', causal, counts);
		for (const found of [orthogonal, independent]) {
			const { slope, error } = slopeOf(counts, found);
			expect(error).toBeLessThan(SLOPE / 3);
			expect(Math.abs(slope + 0.5), `slope ${slope} ± ${error}`).toBeLessThanOrEqual(SLOPE);
		}
		// Over all M: ln of the ratio, with the standard error of the sum.
		let [gain, variance] = [0, 0];
		orthogonal.forEach((a, i) => {
			const b = independent[i]!;
			gain += Math.log(b.mean / a.mean);
			variance += (a.error / a.mean) ** 2 + (b.error / b.mean) ** 2;
		});
		expect(gain).toBeGreaterThan(SIGMAS * Math.sqrt(variance));
	});
});
