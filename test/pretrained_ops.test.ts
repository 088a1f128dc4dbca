/** Operations of pretrained decoders: what they refuse, and what does not fit into a description. */
import { describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices } from '../lib/device.js';
import { ArgumentError, ShapeError } from '../lib/errors.js';
import * as ops from '../lib/ops/index.js';
import { Tensor, tensor } from '../lib/tensor.js';
import { generator } from './harness.js';

describe('refused by name', () => {
	const z = ops.zeros;
	const grad = (x: Tensor) => Object.assign(x, { requiresGrad: true });
	const q8 = () => Tensor.empty([3, 64], 'cpu', 'q8_0', new Uint8Array(204));
	const cases: [string, () => unknown, Error][] = [
		['linear widths', () => ops.linear(z([2, 63]), q8()), new ShapeError('linear: `x` has shape [2, 63], expected [… C=64]')],
		[
			'linear of whole numbers',
			() => ops.linear(z([1]), ops.lengths([1])),
			new ArgumentError('linear: `w` holds i32, expected one of f32, f16, bf16, q8_0, q4_0, q4_k, q6_k'),
		],
		['linear x of halves', () => ops.linear(ops.cast(z([2, 64]), 'f16'), q8()), new ArgumentError('linear: `x` holds f16, expected f32')],
		[
			'linear gradient',
			() => ops.linear(grad(z([2, 64])), q8()),
			new ArgumentError('linear: a gradient is asked for through a w of q8_0, expected f32'),
		],
		[
			'linear gradient of b',
			() => ops.linear(z([2, 64]), q8(), grad(z([3]))),
			new ArgumentError('linear: a gradient is asked for through a w of q8_0, expected f32'),
		],
		[
			'embed below',
			() => ops.embed(Int32Array.of(0, -1), q8()),
			new ArgumentError('embed: token -1 at place 1, expected one from 0 below 3'),
		],
		['embed above', () => ops.embed(Int32Array.of(3), q8()), new ArgumentError('embed: token 3 at place 0, expected one from 0 below 3')],
		[
			'embed w',
			() => ops.embed(Int32Array.of(0), z([3])),
			new ShapeError('embed: `w` has shape [3] and holds f32, expected weights [V C]'),
		],
		[
			'embed w of whole numbers',
			() => ops.embed(Int32Array.of(0), ops.lengths([3])),
			new ShapeError('embed: `w` has shape [1] and holds i32, expected weights [V C]'),
		],
		[
			'embed gradient',
			() => ops.embed(Int32Array.of(0), grad(q8())),
			new ArgumentError('embed: a gradient is asked for through a w of q8_0, expected f32'),
		],
		['rmsNorm', () => ops.rmsNorm(z([2, 3]), z([4])), new ShapeError('rmsNorm: `x` has shape [2, 3], expected [… C=4]')],
		[
			'rmsNorm epsilon',
			() => ops.rmsNorm(z([2]), z([2]), { epsilon: NaN }),
			new ArgumentError('rmsNorm: epsilon is NaN, expected a finite number from 0'),
		],
		['swiglu', () => ops.swiglu(z([2, 3]), z([6])), new ShapeError('swiglu: `b` has shape [6], expected [2, 3] as `a`')],
		['swiglu of halves', () => ops.swiglu(z([2]), ops.cast(z([2]), 'f16')), new ArgumentError('swiglu: found f32 and f16, expected f32')],
		['rotations', () => ops.rotations(z([2]), z([3, 2])), new ArgumentError('rotations: `positions` holds f32, expected i32')],
		[
			'rotations frequencies',
			() => ops.rotations(ops.lengths([1]), z([3])),
			new ShapeError('rotations: `frequencies` has shape [3], expected [half 2]'),
		],
		[
			'rope',
			() => ops.rope(z([2, 3, 6]), z([2, 2, 2]), 'halves'),
			new ArgumentError('rope: heads of 6 numbers, expected 4 as in the table'),
		],
		[
			'rope rows',
			() => ops.rope(z([2, 3, 4]), z([3, 2, 2]), 'halves'),
			new ShapeError('rope: `table` has shape [3, 2, 2], expected [n=2 half 2]'),
		],
		[
			'crossEntropy',
			() => ops.crossEntropy(z([6]), Int32Array.of(0)),
			new ShapeError('crossEntropy: `logits` has shape [6], expected [N V]'),
		],
		[
			'crossEntropy targets',
			() => ops.crossEntropy(z([2, 3]), Int32Array.of(0)),
			new ShapeError('crossEntropy: `targets` holds 1 numbers, expected N=2'),
		],
		[
			'crossEntropy targets tensor',
			() => ops.crossEntropy(z([2, 3]), ops.lengths([0])),
			new ShapeError('crossEntropy: `targets` has shape [1], expected [2]'),
		],
		[
			'crossEntropy targets of floats',
			() => ops.crossEntropy(z([2, 3]), z([2])),
			new ArgumentError('crossEntropy: `targets` holds f32, expected i32'),
		],
		[
			'crossEntropy below',
			() => ops.crossEntropy(z([2, 3]), Int32Array.of(-1, -2)),
			new ArgumentError('crossEntropy: target -2 at place 1, expected one from 0 below 3, or -1'),
		],
		[
			'crossEntropy above',
			() => ops.crossEntropy(z([2, 3]), Int32Array.of(3, 0)),
			new ArgumentError('crossEntropy: target 3 at place 0, expected one from 0 below 3, or -1'),
		],
	];
	test.each(cases)('%s', (_, call, error) => expect(call).toThrow(error));
});

describe('frequencies as two floats', () => {
	test('keep 48 bits of a double', () => {
		const random = generator(4);
		const values = Float64Array.from({ length: 1000 }, (_, i) => (random() + 1.5) * 2 ** -(i % 30) * (1 + random() * 2 ** -24));
		const pairs = ops.twoFloats(values);
		values.forEach((value, i) => {
			expect(Math.abs(pairs[2 * i]! + pairs[2 * i + 1]! - value)).toBeLessThanOrEqual(2 ** -48 * value);
		});
	});

	test('of none are none', () => expect(ops.twoFloats([])).toEqual(new Float32Array(0)));
});

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	const on = (data: Float32Array | readonly number[], shape: readonly number[]) => tensor(data, shape, { device });
	const numbers = async (x: Tensor) => [...(await x.read())];

	test('a head at position 1,000,000 turns as doubles say', async () => {
		const D = 64;
		const frequencies = Float64Array.from({ length: D / 2 }, (_, p) => 10_000 ** ((-2 * p) / D));
		for (const [position, pairs] of [
			[1_000_000, 'halves'],
			[1_000_003, 'neighbours'],
			[2 ** 31 - 1, 'halves'],
		] as const) {
			const places = Tensor.empty([1], device, 'i32', Int32Array.of(position));
			const table = ops.rotations(places, on(ops.twoFloats(frequencies), [D / 2, 2]));
			const x = Float32Array.from({ length: D }, generator(1));
			const y = await ops.rope(on(x, [1, 1, D]), table, pairs).read();
			for (let p = 0; p < D / 2; p++) {
				const [i, j] = pairs === 'neighbours' ? [2 * p, 2 * p + 1] : [p, p + D / 2];
				const angle = position * frequencies[p]!;
				// Two floats keep a frequency to 2⁻⁴⁸; the turn itself rounds three times.
				const bound = position * frequencies[p]! * 2 ** -48 + 4 * 2 ** -24;
				expect(Math.abs(y[i]! - (x[i]! * Math.cos(angle) - x[j]! * Math.sin(angle)))).toBeLessThanOrEqual(bound);
				expect(Math.abs(y[j]! - (x[i]! * Math.sin(angle) + x[j]! * Math.cos(angle)))).toBeLessThanOrEqual(bound);
			}
		}
	});

	test('position 0 turns nothing', async () => {
		const x = Float32Array.from({ length: 24 }, generator(2));
		const places = Tensor.empty([1], device, 'i32', Int32Array.of(0));
		const table = ops.rotations(places, on(ops.twoFloats([1, 0.1, 0.01]), [3, 2]));
		for (const pairs of ['halves', 'neighbours'] as const) expect(await ops.rope(on(x, [1, 4, 6]), table, pairs).read()).toEqual(x);
	});

	test('a gate of −200 is shut and one of 200 open; neither is NaN', async () => {
		const y = ops.swiglu(on([-200, 200, -1e38, 1e38, 0, NaN], [6]), on([3, 3, 2, 2, 5, 1], [6]));
		expect((await numbers(y)).map((each) => each + 0)).toEqual([0, 600, 0, Math.fround(1e38) * 2, 0, NaN]);
	});

	test('results may take the place of what they are made from', async () => {
		const [n, C] = [70, 33];
		const x = Float32Array.from({ length: n * C }, generator(3));
		const b = Float32Array.from({ length: n * C }, generator(4));
		const gamma = on(b.subarray(0, C), [C]);
		const inPlace = async (run: (y: Tensor) => void, of = x) => {
			const y = on(of, [n * C]);
			run(y);
			return y.read();
		};
		const norm = await ops.rmsNorm(on(x, [n, C]), gamma).read();
		expect(await inPlace((y) => binding.rmsNorm(y.buffer, gamma.buffer, y.buffer, n, C, 1e-5))).toEqual(norm);
		const gate = await ops.swiglu(on(x, [n * C]), on(b, [n * C])).read();
		expect(await inPlace((y) => binding.swiglu(y.buffer, on(b, [n * C]).buffer, y.buffer, n * C))).toEqual(gate);
		expect(await inPlace((y) => binding.swiglu(on(x, [n * C]).buffer, y.buffer, y.buffer, n * C), b)).toEqual(gate);
		const table = on(b.subarray(0, n * 6), [n, 3, 2]);
		for (const neighbours of [true, false]) {
			const turned = await ops.rope(on(x.subarray(0, n * 18), [n, 3, 6]), table, neighbours ? 'neighbours' : 'halves').read();
			const found = await inPlace((y) => binding.rope(y.buffer, table.buffer, y.buffer, n, 3, 6, neighbours));
			expect(found.subarray(0, n * 18)).toEqual(turned);
		}
	});

	describe('crossEntropy', () => {
		test('of a class that cannot be is infinite, of the only one that can be 0', async () => {
			const logits = on([-Infinity, 5, -Infinity, -Infinity, 5, -Infinity, 1000, -1000, 0], [3, 3]);
			expect(await numbers(ops.crossEntropy(logits, Int32Array.of(1, 0, 1)))).toEqual([0, Infinity, 2000]);
		});

		test('of a row without any class, or with what is no number, is NaN; other rows do not notice', async () => {
			for (const spoilt of [
				[-Infinity, -Infinity],
				[NaN, 1],
				[1, NaN],
				[Infinity, 1],
			]) {
				const loss = await numbers(ops.crossEntropy(on([0, 0, ...spoilt, 0, 0], [3, 2]), Int32Array.of(0, 0, 1)));
				expect(loss, String(spoilt)).toEqual([Math.fround(Math.LN2), NaN, Math.fround(Math.LN2)]);
			}
		});

		test('targets may be a tensor', async () => {
			const logits = on(Float32Array.from({ length: 300 }, generator(5)), [3, 100]);
			const targets = Int32Array.of(99, 0, 50);
			const given = Tensor.empty([3], device, 'i32', targets);
			expect(await numbers(ops.crossEntropy(logits, given))).toEqual(await numbers(ops.crossEntropy(logits, targets)));
			expect(await given.read()).toEqual(targets); // still the caller's
		});

		test.runIf(device === 'cpu')('a tensor of targets that there are not rejects, and the queue goes on', async () => {
			for (const target of [-2, 3, 2 ** 31 - 1, -(2 ** 31)]) {
				const loss = ops.crossEntropy(ops.zeros([2, 3]), tensor([0, target], [2], { dtype: 'i32' }));
				const failed = await loss.read().catch((error: unknown) => error);
				expect(failed).toBeInstanceOf(ShapeError);
				expect((failed as Error).message).toBe(`crossEntropy: target ${target}, expected one from 0 below 3, or -1`);
				expect(await numbers(ops.crossEntropy(ops.zeros([1, 1]), Int32Array.of(0)))).toEqual([0]);
			}
		});
	});
});
