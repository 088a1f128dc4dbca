/** What the operations of lib/ops refuse, what they leave out, and what does not fit into a description. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { binding } from '../lib/binding.js';
import { ArgumentError, ShapeError } from '../lib/errors.js';
import * as ops from '../lib/ops/index.js';
import { type Tensor, tensor } from '../lib/tensor.js';

const numbers = async (x: Tensor) => [...(await x.read())];
const grad = (x: Tensor) => Object.assign(x, { requiresGrad: true });
const total = (x: Tensor) => ops.sum(ops.reshape(x, [x.size]), 0);

afterEach(() => {
	vi.restoreAllMocks();
});

describe('refused by name', () => {
	const z = ops.zeros;
	const cases: [string, () => unknown, Error][] = [
		['linear', () => ops.linear(z([2, 3]), z([4, 5])), new ShapeError('linear: `x` has shape [2, 3], expected [… C=5]')],
		['linear b', () => ops.linear(z([2, 5]), z([4, 5]), z([5])), new ShapeError('linear: `b` has shape [5], expected [F=4]')],
		['matmul', () => ops.matmul(z([2, 3]), z([2, 3])), new ShapeError('matmul: `b` has shape [2, 3], expected [K=3 N]')],
		['matmul 1-d', () => ops.matmul(z([2]), z([2, 3])), new ShapeError('matmul: `a` has shape [2], expected [M K]')],
		['layerNorm', () => ops.layerNorm(z([2, 3]), z([4]), z([4])), new ShapeError('layerNorm: `x` has shape [2, 3], expected [… C=4]')],
		[
			'layerNorm epsilon',
			() => ops.layerNorm(z([2]), z([2]), z([2]), { epsilon: -1 }),
			new ArgumentError('layerNorm: epsilon is -1, expected a finite number from 0'),
		],
		[
			'dropout rate',
			() => ops.dropout(z([2]), { rate: 1, seed: 0 }),
			new ArgumentError('dropout: rate is 1, expected a number from 0 up to but not including 1'),
		],
		[
			'dropout seed',
			() => ops.dropout(z([2]), { rate: 0.5, seed: 2 ** 53 }),
			new ArgumentError('dropout: seed is 9007199254740992, expected an integer in [0, 2⁵³)'),
		],
		[
			'attend groups',
			() => ops.attend(z([1, 1, 3, 4]), z([1, 1, 2, 4]), z([1, 1, 2, 4])),
			new ShapeError('attend: 3 heads of queries, expected a multiple of the 2 groups of keys'),
		],
		[
			'attend filled',
			() => ops.attend(z([1, 1, 1, 4]), z([1, 3, 1, 4]), z([1, 3, 1, 4]), { filled: 4 }),
			new ArgumentError('attend: filled is 4, expected an integer in [0, 3]'),
		],
		[
			'attend lengths',
			() => ops.attend(z([1, 1, 1, 4]), z([1, 3, 1, 4]), z([1, 3, 1, 4]), { lengths: z([1]) }),
			new ArgumentError('attend: `lengths` holds f32, expected i32'),
		],
		[
			'attend gradient',
			() => ops.attend(grad(z([1, 1, 1, 4])), z([1, 3, 1, 4]), z([1, 3, 1, 4]), { filled: 2 }),
			new ArgumentError('attend: filled is 2, expected all 3 rows where gradients are recorded'),
		],
		[
			'meanSquaredError',
			() => ops.meanSquaredError(z([2, 3]), z([3, 2])),
			new ShapeError('meanSquaredError: `y` has shape [3, 2], expected [2, 3] as x'),
		],
		[
			'foldQuery heads',
			() => ops.foldQuery(z([6]), z([6, 2]), 4),
			new ArgumentError('foldQuery: heads is 4, expected a divisor of the 6 rows of w'),
		],
		[
			'foldQuery q',
			() => ops.foldQuery(z([3, 2]), z([6, 2]), 2),
			new ShapeError('foldQuery: `q` has shape [3, 2], expected [6] or [2, 3]'),
		],
		['cast', () => ops.cast(ops.lengths([1]), 'f16'), new ArgumentError('cast: from i32 to f16, expected f32, f16 or bf16')],
		['gelu of halves', () => ops.gelu(ops.cast(z([2]), 'f16')), new ArgumentError('gelu: `x` holds f16, expected f32')],
		['slice of halves', () => ops.slice(ops.cast(z([2]), 'bf16'), 0, 0, 1), new ArgumentError('slice: found bf16, expected f32 or i32')],
		[
			'adamw',
			() => ops.adamw(z([2]), z([3]), z([2]), z([2]), { rate: 1, step: 1 }),
			new ShapeError('adamw: `g` holds 3 elements, expected 2 as `p`'),
		],
		[
			'adamw step',
			() => ops.adamw(z([2]), z([2]), z([2]), z([2]), { rate: 1, step: 0 }),
			new ArgumentError('adamw: step is 0, expected an integer from 1'),
		],
		[
			'adamw clip',
			() => ops.adamw(z([2]), z([2]), z([2]), z([2]), { rate: 1, step: 1, clip: 1 }),
			new ArgumentError('adamw: clip is 1 without `total`, expected the sum of squares of all gradients'),
		],
		['sumSquares', () => ops.sumSquares(z([2]), z([2])), new ShapeError('sumSquares: `total` has shape [2], expected one element')],
	];
	test.each(cases)('%s', (_, call, error) => expect(call).toThrow(error));
});

describe('gradients that nobody asks for are not worked out', () => {
	const gradientsOf = (build: () => Tensor) => {
		const product = vi.spyOn(binding, 'matmul');
		const sums = vi.spyOn(binding, 'sum');
		const loss = total(build());
		const before = sums.mock.calls.length;
		loss.backward();
		return [product.mock.calls.length, sums.mock.calls.length - before];
	};

	test('linear', () => {
		const [x, w, b] = [ops.zeros([4, 3]), ops.zeros([2, 3]), ops.zeros([2])];
		expect(gradientsOf(() => ops.linear(x, grad(w), b))).toEqual([1, 0]);
		vi.restoreAllMocks();
		expect(gradientsOf(() => ops.linear(x, w, grad(b)))).toEqual([1, 1]);
		vi.restoreAllMocks();
		expect(gradientsOf(() => ops.linear(grad(x), w, b))).toEqual([2, 1]);
	});

	test('layerNorm keeps its statistics only for a gradient', () => {
		const norm = vi.spyOn(binding, 'layerNorm');
		const [x, gamma, beta] = [ops.zeros([4, 3]), ops.zeros([3]), ops.zeros([3])];
		ops.layerNorm(x, gamma, beta);
		expect(norm.mock.lastCall!.slice(4, 6)).toEqual([null, null]);
		ops.layerNorm(x, grad(gamma), beta);
		expect(norm.mock.lastCall!.slice(4, 6)).not.toContain(null);
	});
});

describe('dropout', () => {
	test('in evaluation, and at rate 0, changes nothing and may be disposed of by itself', async () => {
		const x = tensor([1, 2, 3], [3]);
		for (const options of [{ rate: 0.9, training: false }, { rate: 0 }]) {
			const y = ops.dropout(x, { seed: 1, ...options });
			expect(await numbers(y)).toEqual([1, 2, 3]);
			y.dispose();
		}
		expect(await numbers(x)).toEqual([1, 2, 3]);
	});

	test('drops about its rate, and both halves of the seed count', async () => {
		const x = tensor(new Float32Array(100_000).fill(1), [100_000]);
		const of = async (seed: number) => ops.dropout(x, { rate: 0.3, seed }).read();
		const [a, b, c] = await Promise.all([of(5), of(5 + 2 ** 32), of(5)]);
		const dropped = a.filter((each) => each === 0).length;
		expect(Math.abs(dropped - 30_000)).toBeLessThan(5 * Math.sqrt(100_000 * 0.3 * 0.7)); // five standard deviations
		expect(a).toEqual(c);
		const alike = a.filter((each, i) => each === b[i]).length; // independent draws agree in 0.3² + 0.7²
		expect(Math.abs(alike - 58_000)).toBeLessThan(5 * Math.sqrt(100_000 * 0.58 * 0.42));
	});
});

describe('cast', () => {
	test('stores what it says', async () => {
		const x = tensor([1, -2, 0.5, Infinity], [4]);
		const [half, brain] = [ops.cast(x, 'f16'), ops.cast(x, 'bf16')];
		expect([half.dtype, half.bytes, brain.dtype, brain.bytes]).toEqual(['f16', 8, 'bf16', 8]);
		expect(await numbers(half)).toEqual([0x3c00, 0xc000, 0x3800, 0x7c00]);
		expect(await numbers(brain)).toEqual([0x3f80, 0xc000, 0x3f00, 0x7f80]);
		expect(await numbers(ops.cast(ops.cast(half, 'bf16'), 'f32'))).toEqual([1, -2, 0.5, Infinity]);
		expect(await numbers(ops.cast(x, 'f32'))).toEqual([1, -2, 0.5, Infinity]);
	});

	test('gradients pass through both', async () => {
		const x = grad(tensor([1, 2], [2]));
		total(ops.scale(ops.cast(ops.cast(ops.cast(x, 'f16'), 'bf16'), 'f32'), 3)).backward();
		expect(x.grad!.dtype).toBe('f32');
		expect(await numbers(x.grad!)).toEqual([3, 3]);
	});
});

test('clipping takes the sum of squares of all parameters', async () => {
	const [a, b] = [tensor([3, 0], [2]), tensor([4], [1])];
	const norm = ops.zeros([1]);
	for (const g of [a, b]) ops.sumSquares(g, norm);
	expect(await numbers(norm)).toEqual([25]);
	const p = ops.zeros([2]);
	const [m, v] = [ops.zeros([2]), ops.zeros([2])];
	ops.adamw(p, a, m, v, { rate: 0.1, step: 1, clip: 1, total: norm });
	expect((await m.read())[0]).toBeCloseTo(0.1 * (3 / 5), 6);
	expect((await p.read())[0]).toBeCloseTo(-0.1, 6); // the first step is the rate itself, whatever the gradient
	expect((await p.read())[1]).toBe(0);
});

test('sizes of 0', async () => {
	expect(await numbers(ops.linear(ops.zeros([0, 3]), ops.zeros([2, 3])))).toEqual([]);
	expect(await numbers(ops.linear(ops.zeros([2, 0]), ops.zeros([2, 0]), tensor([1, 2], [2])))).toEqual([1, 2, 1, 2]);
	expect(await numbers(ops.matmul(ops.zeros([1, 0]), ops.zeros([0, 2])))).toEqual([0, 0]);
	expect(await numbers(ops.sum(ops.zeros([2, 0, 3]), 1))).toEqual([0, 0, 0, 0, 0, 0]);
	expect(await numbers(ops.add(ops.zeros([0, 3]), ops.zeros([3])))).toEqual([]);
	expect(await numbers(ops.rmsNorm(ops.zeros([0, 3]), ops.zeros([3])))).toEqual([]);
	expect(await numbers(ops.swiglu(ops.zeros([0]), ops.zeros([0])))).toEqual([]);
	expect(await numbers(ops.rope(ops.zeros([0, 2, 4]), ops.zeros([0, 2, 2]), 'halves'))).toEqual([]);
	expect(await numbers(ops.crossEntropy(ops.zeros([0, 3]), new Int32Array(0)))).toEqual([]);
	const { o, state } = ops.scan(ops.zeros([1, 0, 2]), ops.zeros([1, 0, 2, 3]));
	expect([await numbers(o), await numbers(state.m), await numbers(state.u)]).toEqual([[], [-Infinity, -Infinity], [0, 0]]);
	expect(await numbers(ops.attend(ops.zeros([1, 1, 1, 2]), ops.zeros([1, 0, 1, 2]), ops.zeros([1, 0, 1, 2])))).toEqual([0, 0]);
});
