/** Weights as files store them: every number to the bit, wherever they lie; what is not a number stays where it belongs. */
import { afterAll, describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices, setThreads } from '../lib/device.js';
import { ShapeError } from '../lib/errors.js';
import { blocks, type WeightType, weightBytes } from '../lib/io/pretrained.js';
import * as ops from '../lib/ops/index.js';
import { Tensor, tensor } from '../lib/tensor.js';
import { file } from './files.js';
import { apart, generator, isSlow, largest, slowOperations, worst } from './harness.js';
import { dequantize } from './io/dequantize.js';
import { quantize } from './io/quantize.js';
import { weightsOf } from './ops/linear_stored.js';

const types = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k', 'q6_k'] as const;
/** Offsets in a block of the 16-bit floats that scale it. */
const scales: Readonly<Record<WeightType, readonly number[]>> = {
	f32: [2],
	f16: [0],
	bf16: [0],
	q8_0: [0],
	q4_0: [0],
	q4_k: [0, 2],
	q6_k: [208],
};

/** Bytes of any value, but with scales that are numbers. */
function anyBytes(type: WeightType, rows: number, C: number): Uint8Array {
	const random = generator(7);
	const bytes = Uint8Array.from({ length: weightBytes(type, [rows, C]) }, () => Math.floor(128 * (random() + 1)));
	for (let at = 0; at < bytes.length; at += blocks[type].bytes) for (const scale of scales[type]) bytes[at + scale + 1]! &= 0xbb;
	return bytes;
}

/** x [N, C] whose row n is 1 at column (n · step) mod C and 0 elsewhere: a product picks columns of w. */
function pickers(N: number, C: number, step: number): Float32Array {
	const x = new Float32Array(N * C);
	for (let n = 0; n < N; n++) x[n * C + ((n * step) % C)] = 1;
	return x;
}

const whole = (type: WeightType, C: number) => Math.ceil(C / blocks[type].numbers) * blocks[type].numbers;

afterAll(() => setThreads(0));

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const on = (data: Float32Array, shape: readonly number[]) => tensor(data, shape, { device });
	/** Whether a product is small enough for the device. */
	const fits = (N: number, C: number, F: number) => !isSlow(device) || 2 * N * C * F <= slowOperations;

	test.each(types)('%s: every number of an embedding, to the bit, whatever the bytes', async (type) => {
		const C = whole(type, 200);
		const bytes = anyBytes(type, 9, C);
		const y = await ops
			.embed(
				Int32Array.from({ length: 9 }, (_, n) => n),
				Tensor.empty([9, C], device, type, bytes),
			)
			.read();
		const wanted = dequantize(type, bytes);
		for (let i = 0; i < wanted.length; i++) if (y[i] !== wanted[i]) expect(y[i], `number ${i}`).toBe(wanted[i]); // as numbers: −0 is 0
	});

	test.each(['f16', 'bf16'] as const)('every %s that there is', async (type) => {
		const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
		const w = Tensor.empty([256, 256], device, type, bits);
		const wanted = dequantize(type, new Uint8Array(bits.buffer));
		const y = await ops
			.embed(
				Int32Array.from({ length: 256 }, (_, n) => n),
				w,
			)
			.read();
		const different = wanted.findIndex((number, i) => !Object.is(number, y[i]));
		expect([different, wanted[different], y[different]]).toEqual([-1, undefined, undefined]);
		// The same in products: those with infinities and NaN have rows of their own.
		const finite = bits.filter((_, i) => Number.isFinite(wanted[i]));
		const rows = Math.floor(finite.length / 256);
		const numbers = dequantize(type, new Uint8Array(finite.buffer));
		for (const N of [3, 40].filter((each) => fits(each, 256, rows))) {
			const product = await ops
				.linear(on(pickers(N, 256, 7), [N, 256]), Tensor.empty([rows, 256], device, type, finite.slice(0, rows * 256)))
				.read();
			for (let n = 0; n < N; n++) {
				for (let f = 0; f < rows; f++) {
					const number = numbers[f * 256 + ((n * 7) % 256)]!;
					if (product[n * rows + f] !== number) expect(product[n * rows + f], `row ${n}, number ${f}`).toBe(number);
				}
			}
		}
	});

	test.each(types)('%s: a product with one 1 is that column of w, to the bit, with few rows and with many', async (type) => {
		for (const [N, rows, width] of [
			[1, 5, 96],
			[2, 3, 300],
			[4, 7, 33],
			[8, 5, 64],
			[16, 4, 65],
			[17, 9, 96],
			[40, 33, 300],
			[150, 50, 600],
		] as const) {
			const C = whole(type, width);
			if (!fits(N, C, rows)) continue;
			const bytes = anyBytes(type, rows, C);
			if (type === 'f32') bytes.set(new Uint8Array(Float32Array.from({ length: rows * C }, generator(3)).buffer));
			const w = dequantize(type, bytes).map((number) => number + 0); // −0 + 0 is 0, as in a sum
			if (w.some((number) => !Number.isFinite(number))) throw new Error('scales should be finite');
			const y = await ops.linear(on(pickers(N, C, 37), [N, C]), Tensor.empty([rows, C], device, type, bytes)).read();
			const wanted = Float32Array.from({ length: N * rows }, (_, i) => w[(i % rows) * C + ((Math.floor(i / rows) * 37) % C)]!);
			expect(
				y.map((number) => number + 0),
				`N=${N} C=${C} F=${rows}`,
			).toEqual(wanted);
		}
	});

	test.each(types)('%s: from any even place in a file, the same to the bit', async (type) => {
		const [F, C] = [5, whole(type, 70)];
		const { bytes, numbers } = weightsOf(type, F, C);
		for (const N of [1, 3, 6, 20].filter((each) => fits(each, C, F))) {
			const x = on(Float32Array.from({ length: N * C }, generator(N)), [N, C]);
			const wanted = await ops.linear(x, Tensor.empty([F, C], device, type, bytes)).read();
			for (const offset of [2, 4, 6, 14, 30, 34, 62, 64]) {
				const padded = new Uint8Array(offset + bytes.length + 2).fill(0xff);
				padded.set(bytes, offset);
				const w = Tensor.map([F, C], device, type, await file('weights', padded), offset);
				expect(await ops.linear(x, w).read(), `N=${N}, offset ${offset}`).toEqual(wanted);
				const rows = await ops.embed(Int32Array.of(4, 0), w).read();
				// As numbers: −0 + 0 is 0.
				expect(rows.map((number) => number + 0)).toEqual(
					Float32Array.of(...numbers.subarray(4 * C), ...numbers.subarray(0, C)).map((number) => number + 0),
				);
			}
		}
	});

	test.each(types)('%s: NaN and infinities in a row of x stay in that row', async (type) => {
		const [F, C] = [19, whole(type, 70)];
		const w = weightsOf(type, F, C);
		for (const N of [2, 3, 8, 33].filter((each) => fits(each, C, F))) {
			const x = Float32Array.from({ length: N * C }, generator(N));
			const clean = await ops.linear(on(x, [N, C]), w.on(device)).read();
			for (const [special, column] of [
				[NaN, 0],
				[NaN, C - 1],
				[Infinity, C - 2],
				[-Infinity, 37],
			] as const) {
				const spoilt = x.slice();
				spoilt[(N - 1) * C + column] = special;
				const y = await ops.linear(on(spoilt, [N, C]), w.on(device)).read();
				expect(y.subarray(0, (N - 1) * F)).toEqual(clean.subarray(0, (N - 1) * F));
				const wanted = Float32Array.from({ length: F }, (_, f) => special * w.numbers[f * C + column]!); // ∞ · 0 is NaN
				expect(y.subarray((N - 1) * F)).toEqual(wanted);
			}
		}
	});

	test.runIf(device === 'cpu').each(types)('%s: one and two threads, the same to the bit', async (type) => {
		for (const [N, width, F] of [
			[1, 1000, 700],
			[4, 600, 500],
			[40, 520, 300],
		] as const) {
			const C = whole(type, width);
			const x = on(Float32Array.from({ length: N * C }, generator(N)), [N, C]);
			const found = [];
			for (const threads of [1, 2]) {
				setThreads(threads);
				found.push(await ops.linear(x, weightsOf(type, F, C).on(device)).read());
			}
			expect(found[1]).toEqual(found[0]);
		}
	});

	test('a product with floats is the same by both names', async () => {
		for (const N of [1, 5, 40]) {
			const numbers = Float32Array.from({ length: N * 37 }, generator(1));
			const [x, { numbers: weights, on: placed }] = [on(numbers, [N, 37]), weightsOf('f32', 11, 37)];
			const w = placed(device);
			const y = Tensor.empty([N, 11], device);
			binding.linearStored(x.buffer, w.buffer, null, y.buffer, 0, N, 37, 11);
			const [found, wanted] = [await y.read(), await ops.linear(x, w).read()];
			// Few rows take a kernel of their own, as does the GPU, which adds in another order: no partial sum is larger than that of all magnitudes.
			const sizes = wanted.map((_, i) => {
				const row = weights.subarray((i % 11) * 37, ((i % 11) + 1) * 37);
				return row.reduce((sum, weight, c) => sum + Math.abs(weight * numbers[Math.floor(i / 11) * 37 + c]!), 0);
			});
			expect(worst(found, wanted)).toBeLessThanOrEqual(apart(37, largest(sizes)));
		}
	});

	test('products of nothing', async () => {
		const none = (shape: readonly number[], type: WeightType) => Tensor.empty(shape, device, type, new Uint8Array(0));
		expect(await ops.linear(on(new Float32Array(0), [0, 32]), weightsOf('q8_0', 2, 32).on(device)).read()).toEqual(new Float32Array(0));
		expect(await ops.linear(on(new Float32Array(0), [2, 0]), none([2, 0], 'f16'), on(Float32Array.of(1, 2), [2])).read()).toEqual(
			Float32Array.of(1, 2, 1, 2),
		);
		expect(await ops.linear(on(new Float32Array(0), [20, 0]), none([1, 0], 'q8_0'), on(Float32Array.of(3), [1])).read()).toEqual(
			new Float32Array(20).fill(3),
		);
		expect(await ops.embed(new Int32Array(0), weightsOf('q4_k', 2, 256).on(device)).read()).toEqual(new Float32Array(0));
	});

	test('sizes and kinds that do not fit are refused, and the queue goes on', async () => {
		const w = weightsOf('q8_0', 3, 64).on(device);
		const [x, y] = [on(new Float32Array(2 * 64), [2, 64]), Tensor.empty([2, 3], device)];
		const ids = Tensor.empty([2], device, 'i32', Int32Array.of(0, 2));
		const rows = Tensor.empty([2, 64], device);
		const calls: [out: Tensor, call: () => void, message: RegExp][] = [
			[y, () => binding.linearStored(x.buffer, w.buffer, null, y.buffer, 7, 2, 64, 3), /^linearStored: .*no kind 7/],
			[y, () => binding.linearStored(x.buffer, w.buffer, null, y.buffer, -1, 2, 64, 3), /^linearStored: .*no kind -1/],
			[
				y,
				() => binding.linearStored(x.buffer, w.buffer, null, y.buffer, 3, 2, 48, 3),
				/^linearStored: .*rows of 48 numbers, expected a multiple of the 32/,
			],
			[
				y,
				() => binding.linearStored(x.buffer, w.buffer, null, y.buffer, 5, 2, 64, 3),
				/^linearStored: .*rows of 64 numbers, expected a multiple of the 256/,
			],
			[y, () => binding.linearStored(x.buffer, w.buffer, null, y.buffer, 1, 2, 64, 4), /^linearStored: .*`y` holds 6 elements, expected 8/],
			[
				y,
				() => binding.linearStored(x.buffer, w.buffer, null, y.buffer, 1, 2, 64, 3),
				/^linearStored: .*`w` holds 204 elements, expected 384/,
			],
			[
				y,
				() => binding.linearStored(x.buffer, w.buffer, x.buffer, y.buffer, 3, 3, 64, 3),
				/^linearStored: .*`x` holds 128 elements, expected 192/,
			],
			[
				rows,
				() => binding.embedStored(ids.buffer, w.buffer, rows.buffer, 3, 2, 4, 64),
				/^embedStored: .*`w` holds 204 elements, expected 272/,
			],
			[rows, () => binding.embedStored(ids.buffer, w.buffer, rows.buffer, 9, 2, 3, 64), /^embedStored: .*no kind 9/],
			[rows, () => binding.embedStored(ids.buffer, w.buffer, rows.buffer, 3, 2, 3, 63), /^embedStored: .*rows of 63 numbers/],
			[
				rows,
				() => binding.embedStored(ids.buffer, w.buffer, rows.buffer, 3, 3, 3, 64),
				/^embedStored: .*`ids` holds 2 elements, expected 3/,
			],
		];
		for (const [out, call, message] of calls) {
			call();
			const failed = await Promise.resolve(out.read()).catch((error: unknown) => error);
			expect(failed).toBeInstanceOf(ShapeError);
			expect((failed as Error).message).toMatch(message);
			out.write(new Float32Array(out.size));
			expect(await ops.linear(x, w).read()).toEqual(new Float32Array(6));
		}
	});

	test.runIf(device === 'cpu')('a token that there is not is refused natively too', async () => {
		const w = weightsOf('q8_0', 3, 64).on(device);
		for (const id of [-1, 3, 2 ** 31 - 1, -(2 ** 31)]) {
			const [ids, y] = [Tensor.empty([2], device, 'i32', Int32Array.of(0, id)), Tensor.empty([2, 64], device)];
			for (const kind of [3, 0]) {
				binding.embedStored(ids.buffer, w.buffer, y.buffer, kind, 2, kind ? 3 : 0, 64);
				await expect(Promise.resolve(y.read())).rejects.toThrow(/^embedStored: .*token -?\d+, expected one below [03]/);
				y.write(new Float32Array(128));
			}
		}
	});
});

test('what quantising loses is within a step of each format', () => {
	const x = Float32Array.from({ length: 2048 }, generator(2));
	for (const [type, most] of [
		['q8_0', 1 / 200],
		['q4_0', 1 / 7],
		['q4_k', 1 / 12],
		['q6_k', 1 / 30],
		['f16', 2 ** -11],
		['bf16', 2 ** -8],
		['f32', 0],
	] as const) {
		const back = dequantize(type, quantize(type, x));
		expect(Math.max(...x.map((number, i) => Math.abs(number - back[i]!))), type).toBeLessThanOrEqual(most);
	}
});
