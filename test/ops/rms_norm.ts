import { rmsNorm } from '../../lib/ops/rms_norm.js';
import { type Subject, uniform } from '../harness.js';

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
	reference({ N, C }, { x, gamma }, precision) {
		const y = precision.zeros(N! * C!);
		const factor = precision.zeros(1);
		const epsilon = Math.fround(1e-5);
		for (let n = 0; n < N!; n++) {
			factor[0] = 0;
			for (let c = 0; c < C!; c++) factor[0] = factor[0]! + x![n * C! + c]! ** 2;
			factor[0] = factor[0]! / C!;
			factor[0] = factor[0]! + epsilon;
			factor[0] = 1 / Math.sqrt(factor[0]!);
			for (let c = 0; c < C!; c++) {
				const at = n * C! + c;
				y[at] = x![at]! * factor[0]!;
				y[at] = y[at]! * gamma![c]!;
			}
		}
		return { y };
	},
	bytes: ({ N, C }) => 4 * (2 * N! * C! + C!),
	operations: ({ N, C }) => 4 * N! * C!,
	benchmarks: [
		{ N: 1, C: 2048 },
		{ N: 512, C: 2048 },
	],
};
