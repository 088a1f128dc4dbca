/** Weights stored otherwise: from every type, to the bit; what is not a number stays none; what does not fit is refused. */
import { describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices } from '../lib/device.js';
import { ShapeError } from '../lib/errors.js';
import { blocks } from '../lib/io/pretrained.js';
import { storedKinds } from '../lib/ops/stored.js';
import { Tensor, tensor } from '../lib/tensor.js';
import { convert, numbersOf, throughQ8 } from './ops/convert_stored.js';
import { weightsOf } from './ops/linear_stored.js';

const sources = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k', 'q6_k'] as const;

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	test.each(sources)('%s to f32: the numbers that an embedding gives; to q8_0: these, quantized', async (type) => {
		const w = weightsOf(type, 5, 768).on(device);
		const numbers = await numbersOf(w).read();
		expect(await convert(w, 'f32').read()).toEqual(numbers);
		expect(await numbersOf(convert(w, 'q8_0')).read()).toEqual(throughQ8(numbers).map((x) => x + 0)); // no −0 among whole numbers
	});

	test.each([NaN, Infinity, -Infinity])('%f is found again in every type', async (value) => {
		for (const to of ['f32', 'f16', 'bf16', 'q8_0'] as const) {
			for (const place of [0, 31, 40, 130]) {
				const x = new Float32Array(3 * 64).fill(0.5);
				x[place] = value;
				const w = convert(tensor(x, [3, 64], { device }), to);
				const found = Tensor.empty([1], device, 'i32');
				binding.firstFault(w.buffer, found.buffer, storedKinds[to]!, w.size);
				const { numbers } = blocks[to];
				expect([...(await found.read())], `${to}, ${place}`).toEqual([place - (place % numbers)]);
			}
		}
	});

	test('what a half does not hold becomes infinite', async () => {
		const y = convert(tensor(Float32Array.of(65519, 65520, -1e30, 65504), [2, 2], { device }), 'f16');
		expect([...(await numbersOf(y).read())]).toEqual([65504, Infinity, -Infinity, 65504]);
	});

	test('nothing to convert', async () => {
		expect((await numbersOf(convert(Tensor.empty([4, 0], device), 'f32')).read()).length).toBe(0);
	});

	test.each<[string, (x: Tensor, y: Tensor) => unknown, string]>([
		['rows of broken blocks', (x, y) => binding.convertStored(x.buffer, y.buffer, 0, 3, 2, 33), 'rows of 33 numbers, expected a multiple'],
		['an x that is too short', (x, y) => binding.convertStored(x.buffer, y.buffer, 0, 3, 5, 64), 'holds 512 elements, expected 1280'],
		['a y that is too short', (x, y) => binding.convertStored(x.buffer, y.buffer, 2, 0, 3, 64), '`y` holds 512 elements, expected 768'],
		[
			'a type to store that there is not',
			(x, y) => binding.convertStored(x.buffer, y.buffer, 0, 4, 2, 64),
			'kind 4 to store, expected 0 (f32)',
		],
		['a stored type that there is not', (x, y) => binding.convertStored(x.buffer, y.buffer, 7, 0, 2, 64), 'there is no kind 7'],
		['a size below 0', (x, y) => binding.convertStored(x.buffer, y.buffer, 0, 0, -1, 64), 'size -1 is negative'],
	])('%s', async (_, call, message) => {
		const [x, y] = [Tensor.empty([2, 64], device), Tensor.empty([2, 64], device)];
		const error = await (async () => {
			call(x, y);
			await y.read();
		})().catch((reason: unknown) => reason);
		expect(error).toBeInstanceOf(ShapeError);
		expect((error as Error).message).toContain(message);
	});
});
