import { rope, rotations, twoFloats } from '../../lib/ops/rope.js';
import { type Subject, uniform } from '../harness.js';

/** Radians a position, as LLaMA has them. */
const frequencies = (half: number) => Array.from({ length: half }, (_, p) => 10_000 ** (-p / half));

/** `first`: where positions begin; they go up in steps of 1, 2, 3 … */
const turns: Subject = {
	name: 'rotations',
	cases: [
		{ n: 1, half: 1 },
		{ n: 7, half: 4 },
		{ n: 33, half: 32, magnitude: 0.7 },
		{ n: 5, half: 64, first: 1_000_000 },
		{ n: 3, half: 10, first: 2 ** 31 - 10 },
		{ n: 3000, half: 3 },
	],
	inputs({ n, half, first = 0 }) {
		const positions = Int32Array.from({ length: n! }, (_, i) => first + (((i * (i + 1)) / 2) % 2 ** 21));
		return { positions: { shape: [n!], data: positions }, frequencies: { shape: [half!, 2], data: twoFloats(frequencies(half!)) } };
	},
	run: ({ positions, frequencies: of }, { magnitude = 1 }) => ({ table: rotations(positions!, of!, { magnitude }) }),
	/** Angles are doubles whatever the precision: that is what the operation promises. */
	reference({ n, half, magnitude = 1 }, { positions, frequencies: of }, precision) {
		const table = precision.zeros(n! * half! * 2);
		for (let i = 0; i < n! * half!; i++) {
			const p = i % half!;
			const angle = positions![Math.floor(i / half!)]! * (of![2 * p]! + of![2 * p + 1]!);
			table[2 * i] = Math.fround(magnitude) * Math.cos(angle);
			table[2 * i + 1] = Math.fround(magnitude) * Math.sin(angle);
		}
		return { table };
	},
	bytes: ({ n, half }) => 4 * (n! + 2 * half! + 2 * n! * half!),
	operations: ({ n, half }) => 40 * n! * half!,
	benchmarks: [{ n: 512, half: 64 }],
};

const turn: Subject = {
	name: 'rope',
	cases: [
		{ n: 1, H: 1, D: 2 },
		{ n: 1, H: 1, D: 2, neighbours: 1 },
		{ n: 7, H: 3, D: 8 },
		{ n: 7, H: 3, D: 8, neighbours: 1 },
		{ n: 5, H: 2, D: 20 },
		{ n: 5, H: 2, D: 20, neighbours: 1 },
		{ n: 3, H: 1, D: 66 },
		{ n: 33, H: 4, D: 64, neighbours: 1 },
		{ n: 100, H: 8, D: 128 },
	],
	inputs({ n, H, D }, random) {
		const table = Float32Array.from({ length: n! * D! }, (_, i) => {
			const angle = (100 + Math.floor(i / D!)) * 10_000 ** ((-2 * ((i % D!) >> 1)) / D!);
			return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
		});
		return { x: uniform([n!, H!, D!], random), table: { shape: [n!, D! / 2, 2], data: table, differentiable: false } };
	},
	run: ({ x, table }, { neighbours }) => ({ y: rope(x!, table!, neighbours ? 'neighbours' : 'halves') }),
	reference({ n, H, D, neighbours }, { x, table }, precision) {
		const y = precision.zeros(n! * H! * D!);
		const product = precision.zeros(2);
		for (let head = 0; head < n! * H!; head++) {
			for (let p = 0; p < D! / 2; p++) {
				const [i, j] = neighbours ? [2 * p, 2 * p + 1] : [p, p + D! / 2];
				const [a, b] = [x![head * D! + i]!, x![head * D! + j]!];
				const at = Math.floor(head / H!) * D! + 2 * p;
				const [cos, sin] = [table![at]!, table![at + 1]!];
				product.set([a * cos, b * sin]);
				y[head * D! + i] = product[0]! - product[1]!;
				product.set([a * sin, b * cos]);
				y[head * D! + j] = product[0]! + product[1]!;
			}
		}
		return { y };
	},
	gradient({ n, H, D, neighbours }, { table }, { y: g }, precision) {
		const dx = precision.zeros(n! * H! * D!);
		const product = precision.zeros(2);
		for (let head = 0; head < n! * H!; head++) {
			for (let p = 0; p < D! / 2; p++) {
				const [i, j] = neighbours ? [2 * p, 2 * p + 1] : [p, p + D! / 2];
				const [a, b] = [g![head * D! + i]!, g![head * D! + j]!];
				const at = Math.floor(head / H!) * D! + 2 * p;
				const [cos, sin] = [table![at]!, table![at + 1]!];
				product.set([a * cos, b * sin]);
				dx[head * D! + i] = product[0]! + product[1]!;
				product.set([b * cos, a * sin]);
				dx[head * D! + j] = product[0]! - product[1]!;
			}
		}
		return { x: dx };
	},
	bytes: ({ n, H, D }) => 4 * (2 * n! * H! * D! + n! * D!),
	operations: ({ n, H, D }) => 3 * n! * H! * D!,
	benchmarks: [
		{ n: 1, H: 32, D: 64 },
		{ n: 512, H: 32, D: 64 },
	],
};

export const subjects: readonly Subject[] = [turns, turn];
