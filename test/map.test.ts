/** Tensors whose numbers lie in a file. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices, memory, synchronize } from '../lib/device.js';
import { ArgumentError, DeviceError, DisposedError, ShapeError } from '../lib/errors.js';
import * as ops from '../lib/ops/index.js';
import { scope, Tensor } from '../lib/tensor.js';
import { file, temporary } from './files.js';
import { generator, isSlow, worst } from './harness.js';

const gc = (globalThis as { gc?: () => void }).gc!; // --expose-gc: vitest.config.mts
const random = (n: number) => Float32Array.from({ length: n }, generator(n));

/** A file whose floats begin at byte `offset`. */
function floats(numbers: Float32Array, offset = 0): Promise<string> {
	return file('numbers', Buffer.concat([Buffer.alloc(offset, 0xff), Buffer.from(numbers.buffer)]));
}

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	test.each([
		[1, 0],
		[3, 8],
		[1000, 2],
		[5000, 4097],
		[20_000, 6], // so many are read by another thread
	])('%i numbers from byte %i on', async (n, offset) => {
		const numbers = random(n);
		const x = Tensor.map([n], device, 'f32', await floats(numbers, offset), offset);
		expect([x.size, x.bytes, x.dtype, x.device]).toEqual([n, 4 * n, 'f32', device]);
		expect(await x.read()).toEqual(numbers);
		expect(await ops.scale(x, 2).read()).toEqual(numbers.map((number) => 2 * number));
		expect(await x.view([n, 1]).read()).toEqual(numbers);
		x.dispose();
		await expect(x.read()).rejects.toThrow(DisposedError);
	});

	test('types other than floats', async () => {
		const place = await file('mixed', Uint8Array.of(9, 0, 1, 0, 2, 0, 0xff, 0xff, 0xff, 0xff));
		expect(await Tensor.map([2], device, 'f16', place, 2).read()).toEqual(Uint16Array.of(1, 2));
		expect(await Tensor.map([1], device, 'i32', place, 6).read()).toEqual(Int32Array.of(-1));
		expect(await Tensor.map([2, 2], device, 'bf16', place, 1).read()).toEqual(Uint16Array.of(256, 512, 0xff00, 0xffff));
	});

	test('nothing, at any place up to the end', async () => {
		for (const [contents, offset] of [
			['', 0],
			['abc', 0],
			['abc', 3],
		] as const) {
			expect(await Tensor.map([0, 5], device, 'f32', await file('small', contents), offset).read()).toEqual(new Float32Array(0));
		}
	});

	test('what the file does not have is refused, naming it', async () => {
		const place = await floats(random(4));
		for (const [shape, offset] of [
			[[4], 1],
			[[5], 0],
			[[0], 17],
			[[1], 16],
			[[1], 2 ** 52],
			[[2 ** 50], 0],
		] as const) {
			expect(() => Tensor.map(shape, device, 'f32', place, offset)).toThrow(ArgumentError);
			expect(() => Tensor.map(shape, device, 'f32', place, offset)).toThrow(place);
		}
		for (const offset of [-1, 0.5, NaN, Infinity]) expect(() => Tensor.map([1], device, 'f32', place, offset)).toThrow(ArgumentError);
		expect(() => Tensor.map([2 ** 31, 2 ** 30], device, 'f32', place, 8)).toThrow(ArgumentError);
		expect(() => Tensor.map([1], device, 'q8_0', place, 0)).toThrow(ArgumentError); // a part of a block
		const folder = await temporary();
		for (const missing of [folder, path.join(folder, 'none'), '']) {
			expect(() => Tensor.map([1], device, 'f32', missing, 0)).toThrow(DeviceError);
			expect(() => Tensor.map([1], device, 'f32', missing, 0)).toThrow(`${missing}: cannot be`);
		}
		expect(await Tensor.map([4], device, 'f32', place, 0).read()).toEqual(random(4));
	});

	test('a refused map holds no memory', async () => {
		const place = await floats(random(1000));
		const before = memory(device).buffers;
		for (let i = 0; i < 20; i++) expect(() => Tensor.map([1001], device, 'f32', place, 0)).toThrow(ArgumentError);
		expect(memory(device).buffers).toBe(before);
	});

	test('several tensors of one file, one after another and at once', async () => {
		const numbers = random(300);
		const place = await floats(numbers);
		const parts = [0, 100, 200].map((from) => Tensor.map([100], device, 'f32', place, 4 * from));
		parts[0]!.dispose();
		expect(await parts[1]!.read()).toEqual(numbers.subarray(100, 200));
		expect(await ops.add(parts[1]!, parts[2]!).read()).toEqual(
			numbers.subarray(100, 200).map((number, i) => Math.fround(number + numbers[200 + i]!)),
		);
		for (const part of parts) part.dispose();
		expect(await Tensor.map([300], device, 'f32', place, 0).read()).toEqual(numbers);
	});

	test('work that is queued still finds the numbers when the tensor is gone', async () => {
		const n = isSlow(device) ? 2000 : 200_000;
		const numbers = random(n);
		const x = Tensor.map([n], device, 'f32', await floats(numbers), 0);
		const y = ops.scale(x, 3);
		x.dispose();
		expect(
			worst(
				await y.read(),
				numbers.map((number) => Math.fround(3 * number)),
			),
		).toBe(0);
	});

	test('a scope frees it', async () => {
		const place = await floats(random(10));
		let inner: Tensor | undefined;
		const y = scope(() => {
			inner = Tensor.map([10], device, 'f32', place, 0);
			return ops.scale(inner, 1);
		});
		expect(inner!.disposed).toBe(true);
		expect(await y.read()).toEqual(random(10));
	});
});

describe('on the CPU, pages of the file itself', () => {
	test('are not counted as memory that is held', async () => {
		const place = await floats(random(1 << 20));
		await synchronize('cpu');
		const before = memory('cpu');
		const x = Tensor.map([1 << 20], 'cpu', 'f32', place, 0);
		const during = memory('cpu');
		expect([during.bytes - before.bytes, during.buffers - before.buffers]).toEqual([0, 0]);
		x.dispose();
		const after = memory('cpu');
		expect([after.bytes - before.bytes, after.cachedBytes - before.cachedBytes]).toEqual([0, 0]);
	});

	test('are never written, neither by an operation nor by `write`', async () => {
		const numbers = random(8);
		const place = await floats(numbers);
		const x = Tensor.map([8], 'cpu', 'f32', place, 0);
		const y = ops.zeros([8]);
		const calls: [string, () => void][] = [
			['write', () => x.write(new Float32Array(8))],
			['fill', () => binding.fill(x.buffer, 0, 8)],
			['scale', () => binding.scale(y.buffer, x.buffer, 1, 8)],
			['scale', () => binding.scale(x.buffer, x.buffer, 2, 8)],
			['accumulate', () => binding.accumulate(y.buffer, x.buffer, 8)],
			['adamw', () => ops.adamw(x, y, ops.zeros([8]), ops.zeros([8]), { rate: 1, step: 1 })],
			['copyBlock', () => binding.copyBlock(y.buffer, x.buffer, 1, 1, 1, 0, 1, 0)],
		];
		for (const [name, call] of calls) {
			expect(call, name).toThrow(ArgumentError);
			expect(call, name).toThrow(name);
		}
		expect(() => x.write(new Float32Array(9))).toThrow(ShapeError);
		expect(await x.read()).toEqual(numbers);
		expect(new Float32Array((await fs.readFile(place)).buffer.slice(0, 32))).toEqual(numbers);
		expect(await ops.scale(x, 1).read()).toEqual(numbers);
	});

	test('stay when the file’s name is gone', async () => {
		const numbers = random(5000);
		const place = await floats(numbers);
		const x = Tensor.map([5000], 'cpu', 'f32', place, 0);
		await fs.rm(place);
		expect(await x.read()).toEqual(numbers);
		x.dispose();
		expect(() => Tensor.map([5000], 'cpu', 'f32', place, 0)).toThrow(DeviceError);
	});

	test.runIf(process.platform === 'linux')('are let go when nobody holds the tensor any more', async () => {
		const place = await floats(random(1 << 18));
		const mapped = async () => (await fs.readFile('/proc/self/maps', 'utf8')).includes(place);
		(() => void Tensor.map([1 << 18], 'cpu', 'f32', place, 0))();
		expect(await mapped()).toBe(true);
		for (let round = 0; round < 50 && (await mapped()); round++) {
			gc();
			await sleep(5);
		}
		expect(await mapped()).toBe(false);
	});

	test('of a file that took the place of another are the new ones', async () => {
		const [before, after] = [random(100), random(101)];
		const place = await floats(before);
		const old = Tensor.map([100], 'cpu', 'f32', place, 0);
		await fs.rename(await floats(after), place);
		expect(await old.read()).toEqual(before);
		expect(await Tensor.map([101], 'cpu', 'f32', place, 0).read()).toEqual(after);
		expect(await old.read()).toEqual(before);
	});
});
