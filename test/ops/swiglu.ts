import { swiglu } from '../../lib/ops/swiglu.js';
import { type Subject, uniform } from '../harness.js';

/** Gates at which the exponential is 0, subnormal, infinite, or about to be. */
const edges = [0, -0, 1, -1, 16, -16, 87.3, -87.3, 88.7, -88.7, 88.8, -88.8, 103, -103, 104, -104, 200, -200, 1e30, -1e30];

export const subject: Subject = {
	name: 'swiglu',
	cases: [{ n: 1 }, { n: 7 }, { n: 33, factor: 200 }, { n: 200, factor: 100 }, { n: 5000 }, { n: 70_000, factor: 20 }],
	inputs({ n, factor = 4 }, random) {
		const a = uniform([n!], random, factor);
		if (n! > edges.length) a.data.set(edges);
		return { a, b: uniform([n!], random, 2) };
	},
	run: ({ a, b }) => ({ y: swiglu(a!, b!) }),
	reference({ n }, { a, b }, precision) {
		const y = precision.zeros(n!);
		const gate = precision.zeros(1);
		for (let i = 0; i < n!; i++) {
			gate[0] = Math.exp(-a![i]!);
			gate[0] = 1 + gate[0]!;
			gate[0] = a![i]! / gate[0]!;
			y[i] = gate[0]! * b![i]!;
		}
		return { y };
	},
	gradient({ n }, { a, b }, { y: g }, precision) {
		const da = precision.zeros(n!);
		const db = precision.zeros(n!);
		const of = precision.zeros(3);
		for (let i = 0; i < n!; i++) {
			const power = Math.exp(-Math.abs(a![i]!));
			of.set(a![i]! < 0 ? [power / (1 + power), 1 / (1 + power)] : [1 / (1 + power), power / (1 + power)]);
			db[i] = a![i]! * of[0]!;
			db[i] = g![i]! * db[i]!;
			of[2] = a![i]! * of[1]!;
			of[2] = 1 + of[2]!;
			of[2] = of[0]! * of[2]!;
			da[i] = g![i]! * b![i]!;
			da[i] = da[i]! * of[2]!;
		}
		return { a: da, b: db };
	},
	bytes: ({ n }) => 12 * n!,
	operations: ({ n }) => 5 * n!,
	benchmarks: [{ n: 5632 }, { n: 1 << 22 }],
};
