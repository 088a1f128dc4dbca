/** FeatureMap: what it draws, that it draws it again, what it refuses, and what it holds. */
import { describe, expect, test } from 'vitest';
import { devices } from '../../lib/device.js';
import { ArgumentError, DisposedError, ShapeError } from '../../lib/errors.js';
import { type FavorOptions, favor, favorKinds } from '../../lib/ops/favor.js';
import * as ops from '../../lib/ops/index.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import { drawOmega, type Projection } from '../../lib/ops/omega.js';
import { type Tensor, tensor } from '../../lib/tensor.js';
import { generator, uniform } from '../harness.js';
import { dot, meanOf } from './native.js';

const names = devices().map(({ name }) => name);
const rowsOf = (omega: Float64Array, D: number) => Array.from({ length: omega.length / D }, (_, i) => omega.slice(i * D, (i + 1) * D));

describe('Ω', () => {
	test.each(favorKinds)('%s: a function of seed and draw, the same on every device', async (kind) => {
		const options = { kind, dim: 5, features: 18, seed: 2 ** 40 + 3 };
		using first = favor(options);
		expect(first.omega.shape).toEqual([18, 5]);
		const [one, draw] = [await first.omega.read(), first.draw];
		expect(draw).toBe(0);
		for (const device of names) {
			using again = favor({ ...options, device });
			expect(again.omega.device).toBe(device);
			expect(await again.omega.read()).toEqual(one);
			again.redraw();
			expect(again.draw).toBe(1);
			const two = await again.omega.read();
			expect(two.every((x, i) => x !== one[i])).toBe(true);
			again.redraw();
			again.draw = 1;
			expect(await again.omega.read()).toEqual(two);
			again.draw = 0;
			expect(await again.omega.read()).toEqual(one);
		}
		for (const seed of [options.seed + 1, options.seed + 2 ** 32, options.seed % 2 ** 32]) {
			using other = favor({ ...options, seed });
			expect((await other.omega.read()).every((x, i) => x !== one[i])).toBe(true);
		}
	});

	test.each([false, true])('orthogonal rows within a block, of χ lengths or of one (regularised: %s)', (regularised) => {
		const D = 6;
		const rows = rowsOf(drawOmega(6 * 5000 + 4, D, { projection: 'orthogonal', regularised, seed: 1, draw: 0 }), D);
		for (let block = 0; block < rows.length; block += D) {
			for (let i = block; i < Math.min(rows.length, block + D); i++)
				for (let j = block; j < i; j++) expect(Math.abs(dot(rows[i]!, rows[j]!))).toBeLessThan(1e-12);
		}
		const squares = rows.map((row) => dot(row, row));
		if (regularised) for (const square of squares) expect(Math.abs(square - D)).toBeLessThan(1e-13 * D);
		else {
			// χ² with D degrees of freedom: mean D, variance 2 D; four sigmas.
			const { mean, error } = meanOf(squares);
			expect(Math.abs(mean - D)).toBeLessThanOrEqual(4 * error);
			const spread = meanOf(squares.map((square) => (square - D) ** 2));
			expect(Math.abs(spread.mean - 2 * D)).toBeLessThanOrEqual(4 * spread.error);
			// Lengths are each row's own: neighbours have nothing to do with each other.
			const along = meanOf(squares.slice(1).map((square, i) => (square - D) * (squares[i]! - D)));
			expect(Math.abs(along.mean)).toBeLessThanOrEqual(4 * along.error);
		}
	});

	test.each(['orthogonal', 'iid'] as const satisfies readonly Projection[])('%s: coordinates are standard normal', (projection) => {
		const numbers = drawOmega(20_000, 4, { projection, regularised: false, seed: 1, draw: 7 });
		for (const [power, moment] of [
			[1, 0],
			[2, 1],
			[3, 0],
			[4, 3],
		] as const) {
			const { mean, error } = meanOf(numbers.map((x) => x ** power));
			expect(Math.abs(mean - moment), `moment ${power}`).toBeLessThanOrEqual(4 * error);
		}
	});

	test('hyperbolic rows come with both signs, trigonometric ones twice, and none is the identity', async () => {
		const half = favor({ kind: 'softmax', dim: 3, features: 4, seed: 9 });
		const drawn = [...(await half.omega.read())];
		const hyperbolic = [...(await favor({ kind: 'hyperbolic', dim: 3, features: 8, seed: 9 }).omega.read())];
		expect(hyperbolic).toEqual([...drawn, ...drawn.map((x) => -x)]);
		expect([...(await favor({ kind: 'trigonometric', dim: 3, features: 8, seed: 9 }).omega.read())]).toEqual([...drawn, ...drawn]);
		expect([...(await favor({ kind: 'relu', dim: 2, features: 3, projection: 'none' }).omega.read())]).toEqual([1, 0, 0, 1, 1, 0]);
	});
});

const sizes = { dim: 4 };
test.each([
	[{ ...sizes, kind: 'toString' }, `favor: kind is toString, expected one of ${favorKinds.join(', ')}`],
	[{ dim: 0 }, 'favor: dim is 0, expected a positive integer'],
	[{ dim: 1.5 }, 'favor: dim is 1.5, expected a positive integer'],
	[{}, 'favor: dim is undefined, expected a positive integer'],
	[{ ...sizes, features: 0 }, 'favor: features is 0, expected a positive integer'],
	[{ ...sizes, features: NaN }, 'favor: features is NaN, expected a positive integer'],
	[{ ...sizes, kind: 'hyperbolic', features: 7 }, 'favor: features is 7, expected a positive even integer'],
	[{ ...sizes, kind: 'trigonometric', features: 7 }, 'favor: features is 7, expected a positive even integer'],
	[{ ...sizes, projection: 'qr' }, 'favor: projection is qr, expected orthogonal, iid or none'],
	[{ ...sizes, seed: -1 }, 'favor: seed is -1, expected an integer in [0, 2⁵³)'],
	[{ ...sizes, seed: 2 ** 53 }, 'favor: seed is 9007199254740992, expected an integer in [0, 2⁵³)'],
	[{ ...sizes, epsilon: -1 }, 'favor: epsilon is -1, expected a number from 0 up'],
	[{ ...sizes, epsilon: Infinity }, 'favor: epsilon is Infinity, expected a number from 0 up'],
	[{ ...sizes, epsilon: NaN }, 'favor: epsilon is NaN, expected a number from 0 up'],
])('refused: %o', (options, message) => {
	expect(() => favor(options as FavorOptions)).toThrow(new ArgumentError(message));
});

test('a draw that is none is refused, and the map stays as it was', async () => {
	using features = favor({ dim: 4, features: 8 });
	const before = await features.omega.read();
	for (const draw of [-1, 0.5, 2 ** 32, NaN]) {
		expect(() => {
			features.draw = draw;
		}).toThrow(new ArgumentError(`favor: draw is ${draw}, expected an integer in [0, 2³²)`));
	}
	expect(features.draw).toBe(0);
	expect(await features.omega.read()).toEqual(before);
});

test('what a kind has where nothing is said', () => {
	for (const kind of favorKinds) {
		const { features, epsilon, projection, seed, draw } = favor({ kind, dim: 4 });
		const usual = ['softmax', 'hyperbolic', 'regularised'].includes(kind) ? 1e-6 : kind === 'trigonometric' ? 0 : 1e-3;
		expect({ features, epsilon, projection, seed, draw }).toEqual({
			features: 256,
			epsilon: usual,
			projection: 'orthogonal',
			seed: 0,
			draw: 0,
		});
	}
});

describe.each(names)('%s', (device) => {
	const some = (T: number): [Tensor, Tensor, Tensor] => {
		const random = generator(T);
		return [0, 1, 2].map(() => tensor(uniform([1, T, 2, 4], random).data as Float32Array, [1, T, 2, 4], { device })) as [
			Tensor,
			Tensor,
			Tensor,
		];
	};

	test('a map for another width is refused, and another draw’s state is another answer', async () => {
		using features = favor({ dim: 4, features: 8, device });
		expect(() => linearAttention(...some(3), { features: favor({ dim: 5, features: 8, device }) })).toThrow(ShapeError);
		const { state } = linearAttention(...some(3), { features, causal: true });
		expect(() => linearAttention(...some(3), { features: favor({ dim: 4, features: 10, device }), causal: true, state })).toThrow(
			ShapeError,
		);
		expect(() => linearAttention(...some(3), { features, state })).toThrow(ArgumentError);
		const before = await linearAttention(...some(2), { features, causal: true, state }).o.read();
		features.redraw();
		expect(await linearAttention(...some(2), { features, causal: true, state }).o.read()).not.toEqual(before);
	});

	test('disposed of: queued work still has its Ω, what comes after gets an error', async () => {
		const features = favor({ dim: 4, features: 64, device });
		const T = device === 'cpu' ? 20_000 : 50;
		const expected = await linearAttention(...some(T), { features, causal: true }).o.read();
		const queued = linearAttention(...some(T), { features, causal: true });
		features.dispose();
		expect(await queued.o.read()).toEqual(expected);
		expect([features.disposed, features.bytes]).toEqual([true, 0]);
		expect(() => linearAttention(...some(3), { features })).toThrow(DisposedError);
		features.redraw();
		expect(() => features.omega).toThrow(new DisposedError('favor: the feature map has been disposed of'));
		features.dispose();
		// One that never drew.
		const idle = favor({ dim: 4, device });
		idle.dispose();
		expect(idle.disposed).toBe(true);
		expect(() => linearAttention(...some(3), { features: idle })).toThrow(DisposedError);
	});

	test('a redraw between forward and backward is an error, and not the gradient of another Ω', () => {
		using features = favor({ dim: 4, features: 8, device });
		const [q, k, v] = some(3);
		q.requiresGrad = true;
		const { o } = linearAttention(q, k, v, { features, causal: true });
		features.redraw();
		expect(() => ops.sum(ops.reshape(o, [o.size]), 0).backward()).toThrow(DisposedError);
	});
});
