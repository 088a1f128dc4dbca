import { layerNorm } from '../../lib/ops/layer_norm.js';
import { type Floats, type Precision, type Sizes, type Subject, uniform } from '../harness.js';

/** Mean and 1/√(variance + ε) of every row. */
function moments({ N, C }: Sizes, x: Floats, precision: Precision) {
	const mean = precision.zeros(N!);
	const rstd = precision.zeros(N!);
	const epsilon = precision.of([1e-5])[0]!;
	for (let n = 0; n < N!; n++) {
		for (let c = 0; c < C!; c++) mean[n] = mean[n]! + x[n * C! + c]!;
		mean[n] = mean[n]! / C!;
		for (let c = 0; c < C!; c++) rstd[n] = rstd[n]! + (x[n * C! + c]! - mean[n]!) ** 2;
		rstd[n] = rstd[n]! / C!;
		rstd[n] = rstd[n]! + epsilon;
		rstd[n] = 1 / Math.sqrt(rstd[n]!);
	}
	return { mean, rstd };
}

/** (x − mean) · rstd, rounded after each step. */
function normalised({ N, C }: Sizes, x: Floats, precision: Precision): Floats {
	const { mean, rstd } = moments({ N: N!, C: C! }, x, precision);
	const hat = precision.zeros(N! * C!);
	for (let i = 0; i < hat.length; i++) {
		hat[i] = x[i]! - mean[Math.floor(i / C!)]!;
		hat[i] = hat[i]! * rstd[Math.floor(i / C!)]!;
	}
	return hat;
}

export const subject: Subject = {
	name: 'layerNorm',
	cases: [
		{ N: 5, C: 1 },
		{ N: 70, C: 1, offset: 100 },
		{ N: 5, C: 2 },
		{ N: 70, C: 2, offset: 100 },
		{ N: 1, C: 3 },
		{ N: 3, C: 5 },
		{ N: 7, C: 32 },
		{ N: 70, C: 33 },
		{ N: 33, C: 128 },
		{ N: 2, C: 1000 },
		{ N: 20, C: 64, offset: 100 },
		{ N: 5000, C: 16 },
	],
	inputs: ({ N, C, offset = 0 }, random) => ({
		x: uniform([N!, C!], random, 2, offset),
		gamma: uniform([C!], random, 1, 1),
		beta: uniform([C!], random),
	}),
	run: ({ x, gamma, beta }) => ({ y: layerNorm(x!, gamma!, beta!) }),
	reference(sizes, { x, gamma, beta }, precision) {
		const { C } = sizes;
		const y = normalised(sizes, x!, precision);
		for (let i = 0; i < y.length; i++) {
			y[i] = y[i]! * gamma![i % C!]!;
			y[i] = y[i]! + beta![i % C!]!;
		}
		return { y };
	},
	gradient(sizes, { x, gamma }, { y: g }, precision) {
		const { N, C } = sizes;
		const { rstd } = moments(sizes, x!, precision);
		const hat = normalised(sizes, x!, precision);
		const a = precision.zeros(C!);
		const sums = precision.zeros(2);
		const dx = precision.zeros(N! * C!);
		const dgamma = precision.zeros(C!);
		const dbeta = precision.zeros(C!);
		for (let n = 0; n < N!; n++) {
			sums.fill(0);
			for (let c = 0; c < C!; c++) {
				const at = n * C! + c;
				a[c] = g![at]! * gamma![c]!;
				sums[0] = sums[0]! + a[c]!;
				sums[1] = sums[1]! + a[c]! * hat[at]!;
				dgamma[c] = dgamma[c]! + g![at]! * hat[at]!;
				dbeta[c] = dbeta[c]! + g![at]!;
			}
			for (let c = 0; c < C!; c++) {
				const at = n * C! + c;
				dx[at] = a[c]! - sums[0]! / C!;
				dx[at] = dx[at]! - (hat[at]! * sums[1]!) / C!;
				dx[at] = dx[at]! * rstd[n]!;
			}
		}
		return { x: dx, gamma: dgamma, beta: dbeta };
	},
	bytes: ({ N, C }) => 4 * (2 * N! * C! + 2 * C!),
	operations: ({ N, C }) => 8 * N! * C!,
	benchmarks: [
		{ N: 1, C: 512 },
		{ N: 8192, C: 512 },
	],
};
