import { cast } from '../../lib/ops/cast.js';
import type { Subject } from '../harness.js';

interface Format {
	readonly dtype: 'f16' | 'bf16';
	/** Bits after the point, the smallest normal exponent, and the first number that rounds to infinity. */
	readonly bits: number;
	readonly smallest: number;
	readonly overflow: number;
}

/** x rounded to the nearest number of the format, ties to even. */
function rounded(x: number, { bits, smallest, overflow }: Format): number {
	if (!Number.isFinite(x) || x === 0) return x;
	if (Math.abs(x) >= overflow) return Math.sign(x) * Infinity;
	let exponent = Math.floor(Math.log2(Math.abs(x)));
	if (2 ** exponent > Math.abs(x)) exponent--; // log2 may have been rounded up
	const unit = 2 ** (Math.max(exponent, smallest) - bits);
	const whole = Math.floor(x / unit);
	const rest = x / unit - whole;
	return (rest > 0.5 || (rest === 0.5 && whole % 2 !== 0) ? whole + 1 : whole) * unit;
}

/** To 16 bits and back. */
function through(format: Format): Subject {
	const special = [
		0,
		-0,
		1,
		NaN,
		Infinity,
		-Infinity,
		65504,
		65519,
		65520,
		-70000,
		2 ** -24,
		2 ** -25,
		3 * 2 ** -25,
		2 ** -14,
		2 ** -126,
		3.39e38,
	];
	special.push(1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 2 ** -15 + 2 ** -25, 2 - 2 ** -12);
	return {
		name: `cast to ${format.dtype} and back`,
		cases: [{ n: 1 }, { n: 33 }, { n: 5000 }],
		inputs: ({ n }, random) => {
			const any = () => random() * 2 ** Math.floor(20 * random());
			return {
				x: { shape: [n!], data: Float32Array.from({ length: n! }, (_, i) => (n! > 1 && i < special.length ? special[i]! : any())) },
			};
		},
		run: ({ x }) => ({ y: cast(cast(x!, format.dtype), 'f32') }),
		reference: (_, { x }, precision) => ({ y: precision.of(x!.map((each) => rounded(each, format))) }),
		gradient: (_, __, { y: g }) => ({ x: g! }),
		straightThrough: true,
		bytes: ({ n }) => 12 * n!,
		operations: ({ n }) => 2 * n!,
		benchmarks: [{ n: 1 << 22 }],
	};
}

export const subjects: readonly Subject[] = [
	through({ dtype: 'f16', bits: 10, smallest: -14, overflow: 65520 }),
	through({ dtype: 'bf16', bits: 7, smallest: -126, overflow: 2 ** 128 - 2 ** 119 }),
];
