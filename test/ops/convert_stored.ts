import { binding } from '../../lib/binding.js';
import { blocks, type WeightType } from '../../lib/io/pretrained.js';
import { embed } from '../../lib/ops/embed.js';
import { storedKinds } from '../../lib/ops/stored.js';
import { Tensor } from '../../lib/tensor.js';
import { type Floats, type Sizes, type Subject, uniform } from '../harness.js';
import { dequantize, half } from '../io/dequantize.js';
import { halfBits, quantize } from '../io/quantize.js';

const types = ['f32', 'f16', 'bf16', 'q8_0'] as const;
type Type = (typeof types)[number];

/** Weights `[N, C]` stored otherwise. */
export function convert(w: Tensor, to: Type): Tensor {
	const [N, C] = w.shape as [number, number];
	const y = Tensor.empty(w.shape, w.device, to);
	binding.convertStored(w.buffer, y.buffer, storedKinds[w.dtype]!, storedKinds[to]!, N, C);
	return y;
}

/** All of its numbers, widened. */
export function numbersOf(w: Tensor): Tensor {
	return embed(
		Int32Array.from({ length: w.shape[0]! }, (_, n) => n),
		w,
	);
}

/**
 * What is left of numbers that were stored as q8_0: a definition in f32, rounded after every step, because a number half-way between two is
 * told by the last bit.
 */
export function throughQ8(x: Float32Array): Float32Array {
	const f = Math.fround;
	const y = new Float32Array(x.length);
	for (let from = 0; from < x.length; from += 32) {
		let most = 0;
		for (let i = from; i < from + 32; i++) most = Math.max(most, Math.abs(x[i]!));
		const exact = f(most / 127);
		const scale = half(halfBits(exact));
		if (scale === 0) continue; // and so are the numbers, whatever stands beside it
		for (let i = from; i < from + 32; i++) {
			const product = f(x[i]! * f(1 / exact));
			y[i] = scale * Math.sign(product) * Math.floor(Math.abs(product) + 0.5);
		}
	}
	return y;
}

function through(type: WeightType, x: Float32Array): Float32Array {
	return type === 'q8_0' ? throughQ8(x) : dequantize(type, quantize(type, x));
}

function conversion(from: Type, to: Type): Subject {
	const plain = blocks[from].numbers * blocks[to].numbers === 1;
	const cases: Sizes[] = [
		{ N: 1, C: 32, special: 0 },
		{ N: 3, C: 160, special: 1 },
		{ N: 3, C: 1056, special: 0 },
		{ N: 130, C: 544, special: 0 },
	];
	if (plain) cases.push(...[1, 5, 17, 33, 515].map((C) => ({ N: 3, C, special: 0 })));
	return {
		name: `convertStored, f32 to ${from} to ${to}`,
		cases,
		inputs({ N, C, special }, random) {
			const x = uniform([N!, C!], random);
			if (special) {
				// Whole and half quanta, quanta too small for a half, nothing at all, and a scale that is subnormal.
				x.data.set(Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? -127 : (i - 16) / 2)));
				for (let i = 32; i < 64; i++) x.data[i]! *= 1e-8;
				x.data.fill(0, 64, 96);
				for (let i = 96; i < 128; i++) x.data[i]! *= 1e-4;
			}
			return { x };
		},
		run: ({ x }) => ({ y: numbersOf(convert(from === 'f32' ? x! : convert(x!, from), to)) }),
		reference: (_, { x }, precision) => ({ y: precision.of(through(to, through(from, singles(x!)))) }),
		bytes: ({ N, C }) => N! * C! * (blocks[from].bytes / blocks[from].numbers + blocks[to].bytes / blocks[to].numbers),
		operations: ({ N, C }) => 2 * N! * C!,
		benchmarks: [{ N: 2048, C: 2048, special: 0 }],
	};
}

/** Every input is a number of 32 bits. */
const singles = (x: Floats) => Float32Array.from(x);

export const subjects: readonly Subject[] = types.flatMap((from) => types.map((to) => conversion(from, to)));
