import { add, concat, mul, scale, slice, sum } from '../../lib/ops/elementwise.js';
import { type Subject, uniform } from '../harness.js';

/** A family of two operands, the second repeated over rows. */
function pair(
	name: string,
	run: typeof add,
	of: (a: number, b: number) => number,
	da: (a: number, b: number) => number,
	db: typeof da,
): Subject {
	return {
		name,
		cases: [
			{ rows: 1, n: 1 },
			{ rows: 1, n: 37 },
			{ rows: 5, n: 33 },
			{ rows: 64, n: 128 },
			{ rows: 300, n: 257 },
			{ rows: 70_000, n: 3 },
		],
		inputs: ({ rows, n }, random) => ({ a: uniform(rows === 1 ? [n!] : [rows!, n!], random, 3), b: uniform([n!], random) }),
		run: ({ a, b }) => ({ y: run(a!, b!) }),
		reference({ rows, n }, { a, b }, precision) {
			const y = precision.zeros(rows! * n!);
			for (let i = 0; i < y.length; i++) y[i] = of(a![i]!, b![i % n!]!);
			return { y };
		},
		gradient({ n }, { a, b }, { y: g }, precision) {
			const ga = precision.zeros(a!.length);
			const gb = precision.zeros(n!);
			for (let i = 0; i < a!.length; i++) {
				ga[i] = g![i]! * da(a![i]!, b![i % n!]!);
				gb[i % n!] = gb[i % n!]! + g![i]! * db(a![i]!, b![i % n!]!);
			}
			return { a: ga, b: gb };
		},
		bytes: ({ rows, n }) => 4 * (2 * rows! * n! + n!),
		operations: ({ rows, n }) => rows! * n!,
		benchmarks: [
			{ rows: 1, n: 1 << 24 },
			{ rows: 8192, n: 512 },
		],
	};
}

const factor = -1.75; // exact in f32

const scaled: Subject = {
	name: 'scale',
	cases: [{ n: 1 }, { n: 31 }, { n: 1000 }, { n: 200_003 }],
	inputs: ({ n }, random) => ({ x: uniform([n!], random) }),
	run: ({ x }) => ({ y: scale(x!, factor) }),
	reference: (_, { x }, precision) => ({ y: precision.of(x!.map((each) => factor * each)) }),
	gradient: (_, __, { y: g }, precision) => ({ x: precision.of(g!.map((each) => factor * each)) }),
	bytes: ({ n }) => 8 * n!,
	operations: ({ n }) => n!,
	benchmarks: [{ n: 1 << 24 }],
};

const summed: Subject = {
	name: 'sum',
	cases: [
		{ outer: 1, n: 1, inner: 1 },
		{ outer: 1, n: 1000, inner: 1 },
		{ outer: 4, n: 7, inner: 5 },
		{ outer: 3, n: 65, inner: 33 },
		{ outer: 1, n: 300, inner: 128 },
		{ outer: 17, n: 129, inner: 1 },
		{ outer: 2, n: 1, inner: 40 },
	],
	inputs: ({ outer, n, inner }, random) => ({ x: uniform([outer!, n!, inner!], random) }),
	run: ({ x }) => ({ y: sum(x!, -2) }),
	reference({ outer, n, inner }, { x }, precision) {
		const y = precision.zeros(outer! * inner!);
		for (let o = 0; o < outer!; o++) {
			for (let k = 0; k < n!; k++) {
				for (let i = 0; i < inner!; i++) y[o * inner! + i] = y[o * inner! + i]! + x![(o * n! + k) * inner! + i]!;
			}
		}
		return { y };
	},
	gradient({ outer, n, inner }, _, { y: g }, precision) {
		const dx = precision.zeros(outer! * n! * inner!);
		for (let i = 0; i < dx.length; i++) dx[i] = g![Math.floor(i / (n! * inner!)) * inner! + (i % inner!)]!;
		return { x: dx };
	},
	bytes: ({ outer, n, inner }) => 4 * outer! * inner! * (n! + 1),
	operations: ({ outer, n, inner }) => outer! * n! * inner!,
	benchmarks: [
		{ outer: 1, n: 16_384, inner: 512 },
		{ outer: 1, n: 1 << 24, inner: 1 },
	],
};

/** The middle dimension of [outer, n, inner] from `start` to `end`. */
const sliced: Subject = {
	name: 'slice',
	cases: [
		{ outer: 1, n: 1, inner: 1, start: 0, end: 1 },
		{ outer: 3, n: 10, inner: 7, start: 4, end: 9 },
		{ outer: 40, n: 64, inner: 32, start: 0, end: 33 },
		{ outer: 2, n: 5, inner: 3, start: 2, end: 2 },
	],
	inputs: ({ outer, n, inner }, random) => ({ x: uniform([outer!, n!, inner!], random) }),
	run: ({ x }, { start, end }) => ({ y: slice(x!, 1, start!, end!) }),
	reference({ outer, n, inner, start, end }, { x }, precision) {
		const y: number[] = [];
		for (let o = 0; o < outer!; o++) for (let i = start! * inner!; i < end! * inner!; i++) y.push(x![o * n! * inner! + i]!);
		return { y: precision.of(y) };
	},
	gradient({ outer, n, inner, start, end }, _, { y: g }, precision) {
		const dx = precision.zeros(outer! * n! * inner!);
		let from = 0;
		for (let o = 0; o < outer!; o++) for (let i = start! * inner!; i < end! * inner!; i++) dx[o * n! * inner! + i] = g![from++]!;
		return { x: dx };
	},
	bytes: ({ outer, inner, start, end }) => 8 * outer! * inner! * (end! - start!),
	operations: ({ outer, inner, start, end }) => outer! * inner! * (end! - start!),
	benchmarks: [{ outer: 64, n: 1024, inner: 512, start: 0, end: 512 }],
};

const parts = (n: number) => [n, 1, 2 * n];

const joined: Subject = {
	name: 'concat',
	cases: [
		{ outer: 1, n: 1, inner: 1 },
		{ outer: 3, n: 10, inner: 7 },
		{ outer: 40, n: 32, inner: 33 },
	],
	inputs: ({ outer, n, inner }, random) => {
		const [a, b, c] = parts(n!).map((size) => uniform([outer!, size, inner!], random));
		return { a: a!, b: b!, c: c! };
	},
	run: ({ a, b, c }) => ({ y: concat([a!, b!, c!], -2) }),
	reference({ outer, n, inner }, { a, b, c }, precision) {
		const y: number[] = [];
		for (let o = 0; o < outer!; o++) {
			[a!, b!, c!].forEach((x, which) => {
				const width = parts(n!)[which]! * inner!;
				y.push(...x.subarray(o * width, (o + 1) * width));
			});
		}
		return { y: precision.of(y) };
	},
	gradient({ outer, n, inner }, _, { y: g }, precision) {
		const gradients = parts(n!).map((): number[] => []);
		let from = 0;
		for (let o = 0; o < outer!; o++) {
			for (const [which, size] of parts(n!).entries()) for (let i = 0; i < size * inner!; i++) gradients[which]!.push(g![from++]!);
		}
		const [a, b, c] = gradients.map(precision.of);
		return { a: a!, b: b!, c: c! };
	},
	bytes: ({ outer, n, inner }) => 8 * outer! * inner! * (3 * n! + 1),
	operations: ({ outer, n, inner }) => outer! * inner! * (3 * n! + 1),
	benchmarks: [{ outer: 64, n: 256, inner: 512 }],
};

export const subjects: readonly Subject[] = [
	pair(
		'add',
		add,
		(a, b) => a + b,
		() => 1,
		() => 1,
	),
	pair(
		'mul',
		mul,
		(a, b) => a * b,
		(_, b) => b,
		(a) => a,
	),
	scaled,
	summed,
	sliced,
	joined,
];
