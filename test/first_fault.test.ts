/** Where the damage in stored weights begins. */
import { afterAll, describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices, setThreads } from '../lib/device.js';
import { ShapeError } from '../lib/errors.js';
import { blocks, type WeightType } from '../lib/io/pretrained.js';
import { storedKinds } from '../lib/ops/stored.js';
import { Tensor } from '../lib/tensor.js';
import { isSlow } from './harness.js';

/** Offsets in a block of the upper 16 bits of each float, little-endian; all other bits of a block may be anything. */
const scales: Readonly<Record<WeightType, readonly number[]>> = {
	f32: [2],
	f16: [0],
	bf16: [0],
	q8_0: [0],
	q4_0: [0],
	q4_k: [0, 2],
	q6_k: [208],
};

/** The largest finite float, and what is not finite: both infinities and NaN. */
const brain = {
	largest: [0x7f, 0xff],
	faults: [
		[0x80, 0x7f],
		[0x80, 0xff],
		[0xc1, 0x7f],
	],
};
const half = {
	largest: [0xff, 0xfb],
	faults: [
		[0, 0x7c],
		[0, 0xfc],
		[1, 0x7e],
	],
};

afterAll(() => setThreads(0));

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const find = async (type: WeightType, bytes: Uint8Array) => {
		const n = (bytes.length / blocks[type].bytes) * blocks[type].numbers;
		const found = Tensor.empty([1], device, 'i32');
		binding.firstFault(Tensor.empty([n], device, type, bytes).buffer, found.buffer, storedKinds[type]!, n);
		return (await found.read())[0];
	};

	test.each(Object.keys(scales) as WeightType[])('%s', async (type) => {
		const { numbers, bytes: size } = blocks[type];
		const { largest, faults } = type === 'f32' || type === 'bf16' ? brain : half;
		for (const count of numbers > 32 || isSlow(device) ? [1, 63, 64, 65, 200] : [1, 63, 64, 65, 200, 70_000]) {
			const sound = new Uint8Array(count * size).fill(0xff);
			for (let at = 0; at < sound.length; at += size) for (const scale of scales[type]) sound.set(largest, at + scale);
			expect(await find(type, sound)).toBe(-1);
			for (const block of new Set([0, count >> 1, count - 1])) {
				for (const scale of scales[type]) {
					for (const fault of faults) {
						const spoilt = sound.slice();
						spoilt.set(fault, block * size + scale);
						expect(await find(type, spoilt), `block ${block} of ${count}`).toBe(block * numbers);
						spoilt.set(fault, (count - 1) * size + scale); // a later one does not matter
						expect(await find(type, spoilt)).toBe(block * numbers);
					}
				}
			}
		}
	});

	test.runIf(device === 'cpu')('is the same with one and two threads, however many there are', async () => {
		const bytes = new Uint8Array(400_000);
		for (let at = 150_001; at < bytes.length; at += 2) bytes[at] = 0x7c;
		for (const threads of [1, 2, 2, 2, 2]) {
			setThreads(threads);
			expect(await find('f16', bytes)).toBe(75_000);
		}
	});

	test('of nothing there is none', async () => expect(await find('q6_k', new Uint8Array(0))).toBe(-1));

	test('what does not fit is refused', async () => {
		const found = Tensor.empty([1], device, 'i32');
		const w = Tensor.empty([32], device, 'q8_0', new Uint8Array(34));
		for (const [kind, n, message] of [
			[3, 64, /^firstFault: .*`w` holds 34 elements, expected 68/],
			[3, 33, /^firstFault: .*33 numbers, expected whole blocks/],
			[3, -32, /^firstFault: .*negative/],
			[7, 32, /^firstFault: .*no kind 7/],
			[-1, 32, /^firstFault: .*no kind -1/],
		] as const) {
			binding.firstFault(w.buffer, found.buffer, kind, n);
			const failed = await Promise.resolve(found.read()).catch((error: unknown) => error);
			expect(failed).toBeInstanceOf(ShapeError);
			expect((failed as Error).message).toMatch(message);
			found.write(new Int32Array(1));
		}
		expect(await find('q8_0', new Uint8Array(34))).toBe(-1);
	});
});
