import { expect, test } from 'vitest';
import { memory, synchronize } from '../lib/device.js';
import { ArgumentError, DeviceError, DisposedError, OutOfMemoryError, ShapeError } from '../lib/errors.js';
import { add, concat, reshape, scale, slice, sum } from '../lib/ops/elementwise.js';
import { lengths, zeros } from '../lib/ops/index.js';
import { matmul } from '../lib/ops/matmul.js';
import { persist, scope, Tensor, tensor } from '../lib/tensor.js';

const numbers = async (x: Tensor) => [...(await x.read())];

test('what goes in comes out, whatever happens to the array', async () => {
	const data = Float32Array.of(1, 2, 3, 4, 5, 6);
	using x = tensor(data, [2, 3]);
	data.fill(0);
	expect(await numbers(x)).toEqual([1, 2, 3, 4, 5, 6]);
	expect([x.shape, x.size, x.bytes, x.dtype, x.device, x.disposed]).toEqual([[2, 3], 6, 24, 'f32', 'cpu', false]);
	using y = tensor([1.5, -2], [2], { dtype: 'i32' });
	expect(await numbers(y)).toEqual([1, -2]);
	using scalar = tensor([7], []);
	expect(await numbers(scalar)).toEqual([7]);
	using empty = tensor([], [0, 4]);
	expect(await numbers(empty)).toEqual([]);
	using part = tensor(new Float32Array([9, 1, 2, 9]).subarray(1, 3), [2]);
	expect(await numbers(part)).toEqual([1, 2]);
});

test('wrong arguments', () => {
	expect(() => tensor([1, 2], [3])).toThrow(new ShapeError('tensor: data holds 2 elements, expected 3 for shape [3]'));
	expect(() => tensor([1], [-1])).toThrow(ShapeError);
	expect(() => tensor([1], [0.5])).toThrow(ShapeError);
	expect(() => tensor([1], [1], { dtype: 'f16' })).toThrow(ArgumentError);
	expect(() => tensor([1], [1], { device: 'gpu' as 'cpu' })).toThrow(DeviceError);
	expect(() => tensor([1], [1], { device: 'cuda:99' })).toThrow(DeviceError);
	expect(() => Tensor.empty([2 ** 50])).toThrow(OutOfMemoryError);
	try {
		tensor([1], [1], { device: 'gpu' as 'cpu' });
	} catch (error) {
		expect(error).toMatchObject({ code: 'ERR_DEVICE', name: 'DeviceError' });
	}
	expect(() => Tensor.empty([2 ** 50])).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_MEMORY' }));
	expect(() => lengths([1, -1])).toThrow(ArgumentError);
	expect(() => lengths([1.5])).toThrow(ArgumentError);
});

test('disposed', async () => {
	const x = tensor([1, 2], [2]);
	x.dispose();
	x.dispose();
	x[Symbol.dispose]();
	expect([x.disposed, x.bytes]).toEqual([true, 0]);
	const error = new DisposedError('tensor [2] has been disposed of');
	await expect(x.read()).rejects.toThrow(error);
	expect(() => x.write(Float32Array.of(1, 2))).toThrow(error);
	expect(() => x.view([1, 2])).toThrow(error);
	expect(() => scale(x, 2)).toThrow(error);
	expect(() => x.buffer).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
	using y = tensor([1, 2], [2]); // its buffer may be the one that x had: x must not see it
	expect(() => x.buffer).toThrow(error);
	expect(await numbers(y)).toEqual([1, 2]);
});

test('disposing right after a call is safe', async () => {
	const n = 300;
	const a = tensor(new Float32Array(n * n).fill(1), [n, n]);
	const b = matmul(a, a);
	const c = matmul(b, a);
	a.dispose();
	b.dispose();
	const found = c.read();
	c.dispose();
	expect(await found).toEqual(new Float32Array(n * n).fill(n * n));
});

test('views share memory; the last one frees it', async () => {
	const before = memory().bytes;
	const x = tensor([1, 2, 3, 4], [4]);
	const y = x.view([2, 2]);
	const z = y.view([1, 4]);
	expect(memory().bytes).toBe(before + 16);
	x.write(Float32Array.of(5, 6, 7, 8));
	x.dispose();
	y.dispose();
	expect(await numbers(z)).toEqual([5, 6, 7, 8]);
	expect(memory().bytes).toBe(before + 16);
	z.dispose();
	z.dispose();
	expect(memory().bytes).toBe(before);
	expect(() => tensor([1, 2], [2]).view([3])).toThrow(new ShapeError('view: [3] has 3 elements, expected 2 as in [2]'));
});

test('writes and operations happen in the order in which they are called', async () => {
	const n = 400; // large enough for the queue
	using one = tensor(new Float32Array(n * n).fill(1 / n), [n, n]);
	using x = tensor(new Float32Array(n * n).fill(1), [n, n]);
	using first = matmul(x, one);
	x.write(new Float32Array(n * n).fill(2));
	using second = matmul(x, one);
	x.write(new Float32Array(n * n).fill(3));
	const [a, b, c] = await Promise.all([first.read(), second.read(), x.read()]);
	expect([a[0], b[0], c[0]].map((each) => Math.round(each! * 1000) / 1000)).toEqual([1, 2, 3]);
	expect(() => x.write(new Float32Array(3))).toThrow(new ShapeError(`write: data holds 3 elements, expected ${n * n}`));
});

test('a scope frees what it does not return', async () => {
	await synchronize(); // the queue may still hold what the test before has read
	const before = memory();
	let lost: Tensor | undefined;
	class Counted {
		constructor(readonly held: Tensor) {}
		*tensors() {
			yield this.held;
		}
	}
	const kept = scope(() => {
		lost = tensor([1], [1]);
		const inner = scope(() => ({ a: scale(lost!, 2), gone: 3 }));
		tensor([9], [1]); // made after an inner scope has ended, and still the outer one's
		return {
			list: [inner.a, { deep: tensor([3], [1]) }],
			map: new Map([['x', tensor([4], [1])]]),
			state: new Counted(tensor([5], [1])),
			nothing: null,
		};
	});
	expect(lost!.disposed).toBe(true);
	const found = [kept.list[0] as Tensor, (kept.list[1] as { deep: Tensor }).deep, kept.map.get('x')!, kept.state.held];
	expect(await Promise.all(found.map(async (x) => (await x.read())[0]))).toEqual([2, 3, 4, 5]);
	for (const x of found) x.dispose();
	expect(memory().bytes).toBe(before.bytes);
	expect(memory().buffers).toBe(before.buffers);
});

test('scopes nest: what an inner one keeps belongs to the outer one', () => {
	let inner: Tensor | undefined;
	let outlives: Tensor | undefined;
	scope(() => {
		inner = scope(() => tensor([1], [1]));
		expect(inner.disposed).toBe(false);
		outlives = persist(tensor([2], [1]));
	});
	expect(inner!.disposed).toBe(true);
	expect(outlives!.disposed).toBe(false);
	outlives!.dispose();
});

test('a scope that throws frees everything and passes the error on', () => {
	const before = memory().buffers;
	const reason = new Error('mine');
	expect(() =>
		scope(() => {
			tensor([1], [1]);
			scope(() => {
				tensor([2], [1]);
				throw reason;
			});
		}),
	).toThrow(reason);
	expect(memory().buffers).toBe(before);
	expect(() => scope(async () => tensor([1], [1]))).toThrow(ArgumentError);
	const outside = tensor([1], [1]); // no scope is open any more
	expect(memory().buffers).toBe(before + 1);
	outside.dispose();
});

test('what is slightly wrong is refused by name', () => {
	using x = zeros([2, 3]);
	using i = tensor([1, 2], [2], { dtype: 'i32' });
	expect(() => add(x, zeros([2]))).toThrow(new ShapeError('add: `b` has shape [2], expected the end of [2, 3]'));
	expect(() => add(x, i)).toThrow(new ArgumentError('add: `b` holds i32, expected f32'));
	expect(() => scale(x, NaN)).toThrow(ArgumentError);
	expect(() => slice(x, 2, 0, 1)).toThrow(ArgumentError);
	expect(() => slice(x, 1, 2, 4)).toThrow(ArgumentError);
	expect(() => slice(x, 1, 2, 1)).toThrow(ArgumentError);
	expect(() => concat([], 0)).toThrow(ArgumentError);
	expect(() => concat([x, zeros([3, 3])], 1)).toThrow(ShapeError);
	expect(() => concat([x, x], 5)).toThrow(ArgumentError);
	expect(() => sum(x, -3)).toThrow(ArgumentError);
	expect(() => reshape(x, [7])).toThrow(ShapeError);
});

test('slices of integers stay integers', async () => {
	using i = tensor([1, 2, 3, 4], [2, 2], { dtype: 'i32' });
	using part = slice(i, 1, 1, 2);
	using both = concat([part, i], 1);
	expect([part.dtype, both.dtype]).toEqual(['i32', 'i32']);
	expect(await numbers(both)).toEqual([2, 1, 2, 4, 3, 4]);
});
