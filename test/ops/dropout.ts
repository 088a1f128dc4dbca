import { dropout } from '../../lib/ops/dropout.js';
import { type Subject, uniform } from '../harness.js';

const seeds = [0, 1, 123_456_789_012_345, 2 ** 53 - 1];
const rates = [0.1, 0.5, 0.96875];

/** Block `block` of the generator Philox4x32-10 (Salmon et al. 2011): four words of 32 bits, from a key and a counter. */
function philox(seed: number, block: number): number[] {
	const low = (x: bigint) => BigInt.asUintN(32, x);
	const high = (x: bigint) => x >> 32n;
	let [c0, c1, c2, c3] = [low(BigInt(block)), high(BigInt(block)), 0n, 0n];
	let [k0, k1] = [low(BigInt(seed)), high(BigInt(seed))];
	for (let round = 0; round < 10; round++) {
		const p0 = 0xd2511f53n * c0;
		const p1 = 0xcd9e8d57n * c2;
		[c0, c1, c2, c3] = [high(p1) ^ c1 ^ k0, low(p1), high(p0) ^ c3 ^ k1, low(p0)];
		k0 = low(k0 + 0x9e3779b9n);
		k1 = low(k1 + 0xbb67ae85n);
	}
	return [c0, c1, c2, c3].map(Number);
}

/** What each element is multiplied by. The rate reaches the operation in f32. */
function factors(n: number, seed: number, rate: number): number[] {
	const rounded = Math.fround(rate);
	return Array.from({ length: n }, (_, i) => {
		const draw = Math.floor(philox(seed, Math.floor(i / 4))[i % 4]! / 2 ** 8) / 2 ** 24;
		return draw >= rounded ? 1 / (1 - rounded) : 0;
	});
}

export const subject: Subject = {
	name: 'dropout',
	cases: [
		{ n: 1, seed: 0, rate: 1 },
		{ n: 31, seed: 1, rate: 0 },
		{ n: 1000, seed: 2, rate: 1 },
		{ n: 1003, seed: 3, rate: 2 },
		{ n: 20_001, seed: 2, rate: 0 },
	],
	inputs: ({ n }, random) => ({ x: uniform([n!], random) }),
	run: ({ x }, { seed, rate }) => ({ y: dropout(x!, { seed: seeds[seed!]!, rate: rates[rate!]! }) }),
	reference({ n, seed, rate }, { x }, precision) {
		const scale = precision.of(factors(n!, seeds[seed!]!, rates[rate!]!));
		return { y: precision.of(scale.map((factor, i) => factor * x![i]!)) };
	},
	gradient({ n, seed, rate }, _, { y: g }, precision) {
		const scale = precision.of(factors(n!, seeds[seed!]!, rates[rate!]!));
		return { x: precision.of(scale.map((factor, i) => factor * g![i]!)) };
	},
	bytes: ({ n }) => 8 * n!,
	operations: ({ n }) => 10 * n!,
	benchmarks: [{ n: 1 << 22, seed: 2, rate: 0 }],
};
