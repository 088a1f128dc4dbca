import { adamw, sumSquares } from '../../lib/ops/optimizer.js';
import { type Subject, uniform } from '../harness.js';

const settings = { rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.1 };
const step = 3;

/** One step, from running means that are not zero. `clip` in hundredths; total is the sum of squares of all gradients. */
const optimizer: Subject = {
	name: 'adamw',
	cases: [
		{ n: 1, clip: 0 },
		{ n: 33, clip: 0 },
		{ n: 1000, clip: 25 },
		{ n: 70_000, clip: 100_000_000 },
	],
	inputs: ({ n }, random) => ({
		p: uniform([n!], random),
		g: uniform([n!], random),
		m: uniform([n!], random, 0.1),
		v: uniform([n!], random, 0.1, 0.2),
		total: uniform([1], random, n! / 10, n! / 3),
	}),
	run({ p, g, m, v, total }, { clip }) {
		adamw(p!, g!, m!, v!, { ...settings, step, clip: clip! / 100, total: total! });
		return { p: p!, m: m!, v: v! };
	},
	reference({ n, clip }, { p, g, m, v, total }, precision) {
		const [rate, beta1, beta2, epsilon, decay, limit] = [...Object.values(settings), clip! / 100].map(Math.fround); // as they cross the boundary
		const [rest1, rest2] = precision.of([1 - beta1!, 1 - beta2!]);
		const [correction1, correction2] = precision.of([1 - beta1! ** step, 1 - beta2! ** step]);
		const [norm] = precision.of([Math.sqrt(total![0]!)]);
		const [factor] = precision.of([clip! > 0 ? Math.min(1, limit! / norm!) : 1]);
		const tmp = precision.zeros(3);
		const out = { p: precision.zeros(n!), m: precision.zeros(n!), v: precision.zeros(n!) };
		for (let i = 0; i < n!; i++) {
			tmp[0] = factor! * g![i]!;
			tmp[1] = rest1! * tmp[0]!;
			out.m[i] = beta1! * m![i]! + tmp[1]!;
			tmp[1] = rest2! * tmp[0]! * tmp[0]!;
			out.v[i] = beta2! * v![i]! + tmp[1]!;
			tmp[0] = out.m[i]! / correction1!;
			tmp[1] = out.v[i]! / correction2!;
			tmp[1] = Math.sqrt(tmp[1]!);
			tmp[1] = tmp[1]! + epsilon!;
			tmp[0] = tmp[0]! / tmp[1]!;
			tmp[0] = tmp[0]! + decay! * p![i]!;
			out.p[i] = p![i]! - rate! * tmp[0]!;
		}
		return out;
	},
	bytes: ({ n }) => 28 * n!,
	operations: ({ n }) => 16 * n!,
	benchmarks: [{ n: 3_152_896, clip: 0 }],
};

const squares: Subject = {
	name: 'sumSquares',
	cases: [{ n: 1 }, { n: 31 }, { n: 1000 }, { n: 100_000 }],
	inputs: ({ n }, random) => ({ x: uniform([n!], random), total: uniform([1], random, 1, 5) }),
	run({ x, total }) {
		sumSquares(x!, total!);
		return { total: total! };
	},
	reference(_, { x, total }, precision) {
		const sum = precision.zeros(1);
		for (const each of x!) sum[0] = sum[0]! + each * each;
		sum[0] = sum[0]! + total![0]!;
		return { total: sum };
	},
	bytes: ({ n }) => 4 * n!,
	operations: ({ n }) => 2 * n!,
	benchmarks: [{ n: 3_152_896 }],
};

export const subjects: readonly Subject[] = [optimizer, squares];
