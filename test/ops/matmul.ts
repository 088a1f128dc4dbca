import { matmul } from '../../lib/ops/matmul.js';
import { type Sizes, type Subject, uniform } from '../harness.js';

/** Where op(a)[m, k] and op(b)[k, n] are stored. */
function places({ M, N, K, transposeA, transposeB }: Sizes) {
	return {
		a: (m: number, k: number) => (transposeA ? k * M! + m : m * K! + k),
		b: (k: number, n: number) => (transposeB ? n * K! + k : k * N! + n),
	};
}

const kinds = [0, 1, 2, 3].map((kind) => ({ transposeA: kind & 1, transposeB: kind >> 1 }));

export const subject: Subject = {
	name: 'matmul',
	cases: [
		{ M: 1, N: 1, K: 1 },
		{ M: 3, N: 5, K: 7 },
		{ M: 33, N: 65, K: 40 },
		{ M: 64, N: 96, K: 130 },
	].flatMap((sizes) => kinds.map((kind) => ({ ...sizes, ...kind }))),
	inputs: ({ M, N, K, transposeA, transposeB }, random) => ({
		a: uniform(transposeA ? [K!, M!] : [M!, K!], random),
		b: uniform(transposeB ? [N!, K!] : [K!, N!], random),
	}),
	run: ({ a, b }, { transposeA, transposeB }) => ({
		y: matmul(a!, b!, { transposeA: Boolean(transposeA), transposeB: Boolean(transposeB) }),
	}),
	reference(sizes, { a, b }, precision) {
		const { M, N, K } = sizes;
		const at = places(sizes);
		const y = precision.zeros(M! * N!);
		for (let m = 0; m < M!; m++) {
			for (let n = 0; n < N!; n++) {
				for (let k = 0; k < K!; k++) y[m * N! + n] = y[m * N! + n]! + a![at.a(m, k)]! * b![at.b(k, n)]!;
			}
		}
		return { y };
	},
	gradient(sizes, { a, b }, { y: g }, precision) {
		const { M, N, K } = sizes;
		const at = places(sizes);
		const da = precision.zeros(M! * K!);
		const db = precision.zeros(K! * N!);
		for (let m = 0; m < M!; m++) {
			for (let n = 0; n < N!; n++) {
				for (let k = 0; k < K!; k++) {
					da[at.a(m, k)] = da[at.a(m, k)]! + g![m * N! + n]! * b![at.b(k, n)]!;
					db[at.b(k, n)] = db[at.b(k, n)]! + g![m * N! + n]! * a![at.a(m, k)]!;
				}
			}
		}
		return { a: da, b: db };
	},
	bytes: ({ M, N, K }) => 4 * (M! * K! + K! * N! + M! * N!),
	operations: ({ M, N, K }) => 2 * M! * N! * K!,
	benchmarks: kinds.map((kind) => ({ M: 512, N: 512, K: 512, ...kind })),
};
