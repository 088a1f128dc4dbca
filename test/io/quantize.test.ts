import { describe, expect, test } from 'vitest';
import { ShapeError } from '../../lib/errors.js';
import { blocks, type WeightType, weightBytes } from '../../lib/io/pretrained.js';
import { Random } from '../../lib/random.js';
import { dequantize, half } from './dequantize.js';
import { brainBits, halfBits, quantize } from './quantize.js';

/** A block of bytes without a pattern in it, but for its scales, which are 1/2 and, for what is taken off, 1/4. */
function block(type: WeightType, scales: readonly number[]): Uint8Array {
	const bytes = Uint8Array.from({ length: blocks[type].bytes }, (_, i) => i * 37 + (i >> 3) * 11 + 5);
	for (const [i, at] of scales.entries()) bytes.set(i === 0 ? [0, 0x38] : [0, 0x34], at);
	return bytes;
}

// The numbers are what ggml's own Python package (gguf 0.19, dequantize) makes of the same blocks.
test.each<[WeightType, readonly number[], Readonly<Record<number, number>>, sum: number, weighted: number]>([
	['q8_0', [0], { 0: 39.5, 1: 58, 15: -56, 16: -37.5, 31: -5 }, -4, 202],
	['q4_0', [0], { 0: 3.5, 1: -2, 15: -4, 16: -2, 31: 0.5 }, -7.5, -193],
	['q4_k', [0, 2], { 0: 123.5, 31: 73.5, 32: 178.75, 63: -7.25, 64: 122, 127: 42.25, 128: 63, 229: 35.25, 255: 24.25 }, 30639, 3684226.5],
	['q6_k', [208], { 0: 280.5, 31: 105, 32: -172.5, 63: -570, 64: 776, 127: -528, 128: -0, 229: -34, 255: 0 }, 5331.5, 410276],
])('%s: a block stands for these numbers', (type, scales, expected, sum, weighted) => {
	const numbers = dequantize(type, block(type, scales));
	expect(numbers).toHaveLength(blocks[type].numbers);
	for (const [i, value] of Object.entries(expected)) expect(numbers[Number(i)], `number ${i}`).toBe(value);
	expect(numbers.reduce((total, each) => total + each, 0)).toBe(sum);
	expect(numbers.reduce((total, each, i) => total + each * i, 0)).toBe(weighted);
});

test('halves: every one of them comes back, and what lies between goes to the even one', () => {
	for (let bits = 0; bits < 0x10000; bits++) {
		const value = half(bits);
		if (halfBits(value) !== bits && !Number.isNaN(value)) expect.fail(`${bits} is ${value} and comes back as ${halfBits(value)}`);
	}
	expect(half(0x3c00)).toBe(1);
	expect(half(0x0001)).toBe(2 ** -24);
	expect([1 + 2 ** -11, 1 + 3 * 2 ** -11, 2 ** -25, 65519, 65520, -1e9, 1 - 2 ** -12].map(halfBits)).toEqual([
		0x3c00, 0x3c02, 0, 0x7bff, 0x7c00, 0xfc00, 0x3c00,
	]);
	expect([1, -2, 1 + 2 ** -8, 1 + 3 * 2 ** -8, Number.POSITIVE_INFINITY].map(brainBits)).toEqual([0x3f80, 0xc000, 0x3f80, 0x3f82, 0x7f80]);
});

describe('what is quantised comes back as near as its steps allow', () => {
	const random = new Random(3);
	const x = Float32Array.from({ length: 4096 }, (_, i) => random.normal() * (1 + (i >> 8)));
	x.fill(0, 512, 768);

	/** The step of each block, from the largest number in it: twice the worst error, with what rounding the scales adds. */
	test.each<[WeightType, group: number, step: (largest: number) => number]>([
		['f32', 1, () => 0],
		['f16', 1, (largest) => largest * 2 ** -10],
		['bf16', 1, (largest) => largest * 2 ** -7],
		['q8_0', 32, (largest) => largest / 127 + 2 * largest * 2 ** -11],
		// One side of zero has 8 steps and the other 7, so that a number at its end is a whole step off.
		['q4_0', 32, (largest) => 2 * (largest / 8) * (1 + 2 ** -10)],
		// Scales and what is taken off come in 63 steps of the largest in 256 numbers.
		['q4_k', 256, (largest) => (2 * largest) / 15 + (2 * 15 * (2 * largest)) / 15 / 63 + (2 * largest) / 63],
		// 31 steps on one side; scales in 128 steps of the largest.
		['q6_k', 256, (largest) => 2 * (largest / 32) + (2 * 32 * (largest / 32)) / 128],
	])('%s', (type, group, step) => {
		const bytes = quantize(type, x);
		expect(bytes).toHaveLength(weightBytes(type, [x.length]));
		const y = dequantize(type, bytes);
		let worst = 0;
		for (let from = 0; from < x.length; from += group) {
			const largest = Math.max(...x.subarray(from, from + group).map(Math.abs));
			for (let i = from; i < from + group; i++) {
				const error = Math.abs(x[i]! - y[i]!);
				if (error > step(largest) / 2 || (largest === 0 && y[i] !== 0)) expect.fail(`number ${i}: ${x[i]} comes back as ${y[i]}`);
				worst = Math.max(worst, largest === 0 ? 0 : error / largest);
			}
		}
		if (type !== 'f32') expect(worst).toBeGreaterThan(0);
	});
});

test('bytes of a weight', () => {
	expect(weightBytes('f32', [3, 5])).toBe(60);
	expect(weightBytes('bf16', [])).toBe(2);
	expect(weightBytes('q8_0', [2, 64])).toBe(136);
	expect(weightBytes('q4_0', [64])).toBe(36);
	expect(weightBytes('q4_k', [3, 512])).toBe(864);
	expect(weightBytes('q6_k', [1, 256])).toBe(210);
	expect(() => weightBytes('q4_k', [256, 128])).toThrow(ShapeError);
	expect(() => quantize('q8_0', new Float32Array(33))).toThrow('33 numbers');
	expect(() => dequantize('q8_0', new Uint8Array(33))).toThrow('33 bytes');
});
