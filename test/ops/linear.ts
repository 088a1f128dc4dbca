import { linear } from '../../lib/ops/linear.js';
import { type Input, type Subject, uniform } from '../harness.js';

export const subject: Subject = {
	name: 'linear',
	cases: [
		{ B: 1, T: 1, C: 1, F: 1, bias: 1 },
		{ B: 1, T: 1, C: 33, F: 65, bias: 1 },
		{ B: 2, T: 3, C: 5, F: 7, bias: 0 },
		{ B: 3, T: 7, C: 64, F: 48, bias: 1 },
		{ B: 1, T: 40, C: 32, F: 1, bias: 1 },
		{ B: 2, T: 17, C: 128, F: 130, bias: 0 },
		{ B: 5, T: 50, C: 100, F: 67, bias: 1 },
	],
	inputs({ B, T, C, F, bias }, random) {
		const inputs: Record<string, Input> = { x: uniform([B!, T!, C!], random), w: uniform([F!, C!], random) };
		if (bias) inputs.b = uniform([F!], random);
		return inputs;
	},
	run: ({ x, w, b }) => ({ y: linear(x!, w!, b) }),
	reference({ B, T, C, F }, { x, w, b }, precision) {
		const y = precision.zeros(B! * T! * F!);
		for (let n = 0; n < B! * T!; n++) {
			for (let f = 0; f < F!; f++) {
				for (let c = 0; c < C!; c++) y[n * F! + f] = y[n * F! + f]! + x![n * C! + c]! * w![f * C! + c]!;
				if (b) y[n * F! + f] = y[n * F! + f]! + b[f]!;
			}
		}
		return { y };
	},
	gradient({ B, T, C, F }, { x, w, b }, { y: g }, precision) {
		const dx = precision.zeros(x!.length);
		const dw = precision.zeros(w!.length);
		const db = precision.zeros(F!);
		for (let n = 0; n < B! * T!; n++) {
			for (let f = 0; f < F!; f++) {
				const up = g![n * F! + f]!;
				db[f] = db[f]! + up;
				for (let c = 0; c < C!; c++) {
					dx[n * C! + c] = dx[n * C! + c]! + up * w![f * C! + c]!;
					dw[f * C! + c] = dw[f * C! + c]! + up * x![n * C! + c]!;
				}
			}
		}
		return b ? { x: dx, w: dw, b: db } : { x: dx, w: dw };
	},
	bytes: ({ B, T, C, F }) => 4 * (B! * T! * (C! + F!) + C! * F! + F!),
	operations: ({ B, T, C, F }) => 2 * B! * T! * C! * F!,
	benchmarks: [
		{ B: 1, T: 1, C: 512, F: 2048, bias: 1 },
		{ B: 1, T: 8, C: 512, F: 2048, bias: 1 },
		{ B: 8, T: 256, C: 512, F: 2048, bias: 1 },
	],
};
