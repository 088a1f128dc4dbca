import { describe, expect, test } from 'vitest';
import { isRecording, needsGrad, noGrad } from '../lib/autograd.js';
import { memory } from '../lib/device.js';
import { ShapeError } from '../lib/errors.js';
import { add, mul, reshape, scale, slice, sum } from '../lib/ops/elementwise.js';
import { scope, type Tensor, tensor } from '../lib/tensor.js';

const numbers = async (x: Tensor | null) => [...(await x!.read())];
const leaf = (...data: number[]) => Object.assign(tensor(data, [data.length]), { requiresGrad: true });
const total = (x: Tensor) => sum(reshape(x, [x.size]), 0);

test('a chain', async () => {
	const x = leaf(1, 2, 3);
	total(mul(scale(x, 3), x)).backward(); // Σ 3x²
	expect(await numbers(x.grad)).toEqual([6, 12, 18]);
});

describe('gradients from several places add up', () => {
	test('one tensor used twice by one operation', async () => {
		const x = leaf(2, 5);
		total(add(x, x)).backward();
		expect(await numbers(x.grad)).toEqual([2, 2]);
	});

	test('a diamond, where operations share the gradient that they hand on', async () => {
		const x = leaf(1, 2);
		const y = scale(x, 2);
		const a = add(y, x);
		const b = add(y, a);
		const c = add(a, b); // (2x + x) + (2x + 3x) = 8x
		total(add(c, mul(y, a))).backward(); // 8x + 6x²
		expect(await numbers(x.grad)).toEqual([8 + 12, 8 + 24]);
	});

	test('adding to a shared gradient does not change it for the other', async () => {
		const [x, y] = [leaf(1, 2), leaf(3, 4)];
		const q = scale(y, 1);
		const p = scale(x, 1);
		const more = scale(p, 3);
		// add hands one tensor to p and q; p's part of `more` arrives before q's is used.
		total(add(add(p, q), more)).backward();
		expect(await numbers(x.grad)).toEqual([4, 4]);
		expect(await numbers(y.grad)).toEqual([1, 1]);
	});

	test('backward twice adds to what is there', async () => {
		const x = leaf(1, 1);
		total(scale(x, 2)).backward();
		const first = x.grad;
		total(scale(x, 5)).backward();
		expect(x.grad).toBe(first);
		expect(await numbers(x.grad)).toEqual([7, 7]);
	});

	test('the gradient of a leaf is its own memory, whatever brought it', async () => {
		const x = leaf(1, 2);
		const y = leaf(3, 4);
		total(add(x, y)).backward(); // add hands the same tensor to both
		total(scale(x, 10)).backward();
		expect(await numbers(x.grad)).toEqual([11, 11]);
		expect(await numbers(y.grad)).toEqual([1, 1]);
	});

	test('the loss is a leaf', async () => {
		const x = leaf(4);
		x.backward();
		expect(await numbers(x.grad)).toEqual([1]);
	});
});

test('only what asks for a gradient gets one', async () => {
	const x = leaf(1, 2);
	const y = tensor([3, 4], [2]);
	const z = mul(x, y);
	expect([z.requiresGrad, mul(y, y).requiresGrad]).toEqual([true, false]);
	total(z).backward();
	expect(await numbers(x.grad)).toEqual([3, 4]);
	expect([y.grad, z.grad]).toEqual([null, null]);
	expect(tensor([1], [1]).backward()).toBeUndefined(); // nothing to bring anywhere
});

test('parts of a tensor', async () => {
	const x = leaf(1, 2, 3, 4, 5, 6);
	const m = reshape(x, [2, 3]);
	total(add(scale(slice(m, 1, 0, 1), 10), scale(slice(m, 1, 2, 3), 100))).backward();
	expect(await numbers(x.grad)).toEqual([10, 0, 100, 10, 0, 100]);
});

test('noGrad records nothing, and mends after an error', () => {
	const x = leaf(1, 2);
	expect(noGrad(() => [isRecording(), needsGrad(x), scale(x, 2).requiresGrad, scale(x, 2).node])).toEqual([false, false, false, null]);
	expect(() =>
		noGrad(() => {
			throw new Error('mine');
		}),
	).toThrow('mine');
	expect([isRecording(), needsGrad(x), needsGrad(null, undefined)]).toEqual([true, true, false]);
});

test('only a scalar has a gradient', () => {
	expect(() => scale(leaf(1, 2), 2).backward()).toThrow(new ShapeError('backward: the tensor has shape [2], expected a scalar'));
});

test('a tape of 20,000 operations', async () => {
	const x = leaf(1);
	scope(() => {
		let y: Tensor = x;
		for (let i = 0; i < 20_000; i++) y = add(y, x);
		total(y).backward();
	});
	expect(await numbers(x.grad)).toEqual([20_001]);
});

test('backward frees all that it made but the gradients of leaves', () => {
	const x = leaf(1, 2, 3);
	const before = memory();
	scope(() => {
		const y = add(mul(x, x), scale(x, 2));
		const loss = total(add(mul(y, x), y));
		const during = memory().buffers;
		loss.backward();
		expect(memory().buffers).toBe(during + 1); // x.grad
	});
	expect(memory().buffers).toBe(before.buffers + 1);
	expect(memory().bytes).toBe(before.bytes + 12);
});
