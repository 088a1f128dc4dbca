import { rmsNorm } from '../../lib/ops/rms_norm.js';
import { type Floats, type Precision, type Sizes, type Subject, uniform } from '../harness.js';

/** 1 / √(mean x² + ε) of every row. */
function factors({ N, C }: Sizes, x: Floats, precision: Precision): Floats {
	const factor = precision.zeros(N!);
	const epsilon = Math.fround(1e-5);
	for (let n = 0; n < N!; n++) {
		for (let c = 0; c < C!; c++) factor[n] = factor[n]! + x[n * C! + c]! ** 2;
		factor[n] = factor[n]! / C!;
		factor[n] = factor[n]! + epsilon;
		factor[n] = 1 / Math.sqrt(factor[n]!);
	}
	return factor;
}

/** `size`: x is about so large; 0: it is 0, and epsilon alone is left. */
export const subject: Subject = {
	name: 'rmsNorm',
	cases: [
		{ N: 5, C: 1 },
		{ N: 1, C: 3 },
		{ N: 3, C: 5 },
		{ N: 7, C: 32 },
		{ N: 70, C: 33 },
		{ N: 33, C: 128 },
		{ N: 2, C: 1000 },
		{ N: 20, C: 64, size: 1e4 },
		{ N: 20, C: 47, size: 1e-4 },
		{ N: 20, C: 31, size: 0 },
		{ N: 1, C: 4099 },
		{ N: 5000, C: 16 },
	],
	inputs: ({ N, C, size = 2 }, random) => ({ x: uniform([N!, C!], random, size), gamma: uniform([C!], random, 1, 1) }),
	run: ({ x, gamma }) => ({ y: rmsNorm(x!, gamma!) }),
	reference(sizes, { x, gamma }, precision) {
		const { N, C } = sizes;
		const y = precision.zeros(N! * C!);
		const factor = factors(sizes, x!, precision);
		for (let i = 0; i < y.length; i++) {
			y[i] = x![i]! * factor[Math.floor(i / C!)]!;
			y[i] = y[i]! * gamma![i % C!]!;
		}
		return { y };
	},
	gradient(sizes, { x, gamma }, { y: g }, precision) {
		const { N, C } = sizes;
		const factor = factors(sizes, x!, precision);
		const hat = precision.zeros(C!);
		const a = precision.zeros(C!);
		const along = precision.zeros(1);
		const dx = precision.zeros(N! * C!);
		const dgamma = precision.zeros(C!);
		for (let n = 0; n < N!; n++) {
			along[0] = 0;
			for (let c = 0; c < C!; c++) {
				const at = n * C! + c;
				hat[c] = x![at]! * factor[n]!;
				a[c] = g![at]! * gamma![c]!;
				along[0] = along[0]! + a[c]! * hat[c]!;
				dgamma[c] = dgamma[c]! + g![at]! * hat[c]!;
			}
			along[0] = along[0]! / C!;
			for (let c = 0; c < C!; c++) {
				const at = n * C! + c;
				dx[at] = hat[c]! * along[0]!;
				dx[at] = a[c]! - dx[at]!;
				dx[at] = dx[at]! * factor[n]!;
			}
		}
		return { x: dx, gamma: dgamma };
	},
	bytes: ({ N, C }) => 4 * (2 * N! * C! + C!),
	operations: ({ N, C }) => 4 * N! * C!,
	benchmarks: [
		{ N: 1, C: 2048 },
		{ N: 512, C: 2048 },
	],
};
