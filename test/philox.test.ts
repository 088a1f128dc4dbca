/** The generator behind Ω and dropout: the published numbers, and the same ones in TypeScript and in native code. */
import { expect, test } from 'vitest';
import { dropout } from '../lib/ops/dropout.js';
import { philox } from '../lib/philox.js';
import { tensor } from '../lib/tensor.js';
import { generator } from './harness.js';

/** Philox4x32-10 with every word of counter and key free, in whole numbers of any size. */
function words(counter: readonly bigint[], key: readonly bigint[]): number[] {
	const low = (x: bigint) => BigInt.asUintN(32, x);
	let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint];
	let [k0, k1] = key as [bigint, bigint];
	for (let round = 0; round < 10; round++) {
		const [p0, p1] = [0xd2511f53n * c0, 0xcd9e8d57n * c2];
		[c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, low(p1), (p0 >> 32n) ^ c3 ^ k1, low(p0)];
		[k0, k1] = [low(k0 + 0x9e3779b9n), low(k1 + 0xbb67ae85n)];
	}
	return [c0, c1, c2, c3].map(Number);
}

const ours = (seed: number, block: number, stream: number) =>
	words([BigInt(block) & 0xffffffffn, BigInt(block) >> 32n, BigInt(stream), 0n], [BigInt(seed) & 0xffffffffn, BigInt(seed) >> 32n]);

test('the published numbers', () => {
	expect(philox(0, 0)).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
	// Its seed, block and stream leave one word at 0, so the other published vectors reach it through the loop above.
	const all = 0xffffffffn;
	expect(words([0n, 0n, 0n, 0n], [0n, 0n])).toEqual(philox(0, 0));
	expect(words([all, all, all, all], [all, all])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
	const pi = [0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n, 0xa4093822n, 0x299f31d0n];
	expect(words(pi.slice(0, 4), pi.slice(4))).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

test('every seed, block and stream up to its limit', () => {
	const random = generator(1);
	const below = (limit: number) => Math.floor(((random() + 1) / 2) * 2 ** 26) * Math.floor(limit / 2 ** 26);
	const ends = [0, 1, 2 ** 16 - 1, 2 ** 16, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];
	for (const seed of ends)
		for (const block of ends)
			for (const stream of [0, 1, 2 ** 32 - 1]) {
				expect(philox(seed, block, stream)).toEqual(ours(seed, block, stream));
			}
	for (let i = 0; i < 2000; i++) {
		const [seed, block, stream] = [below(2 ** 53) + i, below(2 ** 53) + i, below(2 ** 32) + i];
		expect(philox(seed, block, stream)).toEqual(ours(seed, block, stream));
	}
});

test.each([0, 7, 2 ** 32 - 1, 2 ** 32, 123_456_789_012_345, 2 ** 53 - 1])('native dropout draws the same words (seed %i)', async (seed) => {
	// A decision says whether a word lies below a rate: at eight rates, three bits of it.
	const n = 1003;
	const ones = tensor(new Float32Array(n).fill(1), [n]);
	for (const rate of [1 / 1024, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875]) {
		const kept = await dropout(ones, { rate, seed }).read();
		const expected = Float32Array.from({ length: n }, (_, i) =>
			(philox(seed, Math.floor(i / 4))[i % 4]! >>> 8) / 2 ** 24 >= rate ? 1 / (1 - rate) : 0,
		);
		expect(kept.map(Math.sign)).toEqual(expected.map(Math.sign));
	}
});
