import type { DeviceName } from '../../lib/device.js';
import { blocks, type WeightType } from '../../lib/io/pretrained.js';
import { linear } from '../../lib/ops/linear.js';
import { persist, Tensor } from '../../lib/tensor.js';
import { generator, type Input, type Sizes, type Subject, uniform } from '../harness.js';
import { dequantize } from '../io/dequantize.js';
import { quantize } from '../io/quantize.js';

/** Weights as stored, the numbers that they stand for, and a tensor of them on each device. */
export interface Weights {
	readonly bytes: Uint8Array;
	readonly numbers: Float32Array;
	on(device: DeviceName): Tensor;
}

const known = new Map<string, Weights>();

/**
 * Weights `[rows, C]`, always the same for a type and sizes. They are no input of a description, whose inputs are numbers of 32
 * bits: they are made once and stay, as a model's do.
 */
export function weightsOf(type: WeightType, rows: number, C: number): Weights {
	const key = `${type} ${rows} ${C}`;
	const before = known.get(key);
	if (before) return before;
	const bytes = quantize(type, Float32Array.from({ length: rows * C }, generator(31 * rows + C)));
	const tensors = new Map<DeviceName, Tensor>();
	const made: Weights = {
		bytes,
		numbers: dequantize(type, bytes),
		on(device) {
			const tensor = tensors.get(device) ?? persist(Tensor.empty([rows, C], device, type, bytes));
			tensors.set(device, tensor);
			return tensor;
		},
	};
	known.set(key, made);
	return made;
}

/** Rows that take dot products, one by one up to the number from which they take packed panels, and beyond. */
const few = Array.from({ length: 20 }, (_, i) => i + 1);

function cases(type: WeightType): Sizes[] {
	const { numbers } = blocks[type];
	const whole = (C: number) => Math.ceil(C / numbers) * numbers;
	const list: Sizes[] = few.map((N) => ({ N, C: whole(90), F: 7, bias: N % 2 }));
	for (const N of [1, 2, 3, 5, 17, 33, 130, 300]) list.push({ N, C: whole(33), F: 1, bias: 1 });
	for (const N of [17, 33, 130, 300]) list.push({ N, C: whole(130), F: 37, bias: N % 2 });
	// Depths that are cut, and enough of columns for several threads.
	list.push(
		{ N: 1, C: whole(1056), F: 300, bias: 1 },
		{ N: 33, C: whole(1056), F: 70, bias: 0 },
		{ N: 200, C: whole(600), F: 45, bias: 1 },
	);
	if (numbers === 1) for (const C of [1, 5, 15, 16, 17, 31]) list.push({ N: 1, C, F: 3, bias: 1 }, { N: 21, C, F: 18, bias: 0 });
	return list;
}

function stored(type: WeightType): Subject {
	return {
		name: `linear, w of ${type}`,
		cases: cases(type),
		inputs({ N, C, F, bias }, random) {
			const inputs: Record<string, Input> = { x: uniform([N!, C!], random) };
			if (bias) inputs.b = uniform([F!], random);
			return inputs;
		},
		run: ({ x, b }, { C, F }) => ({ y: linear(x!, weightsOf(type, F!, C!).on(x!.device), b) }),
		reference({ N, C, F }, { x, b }, precision) {
			const { numbers: w } = weightsOf(type, F!, C!);
			const y = precision.zeros(N! * F!);
			for (let n = 0; n < N!; n++) {
				for (let f = 0; f < F!; f++) {
					for (let c = 0; c < C!; c++) y[n * F! + f] = y[n * F! + f]! + x![n * C! + c]! * w[f * C! + c]!;
					if (b) y[n * F! + f] = y[n * F! + f]! + b[f]!;
				}
			}
			return { y };
		},
		bytes: ({ N, C, F }) => 4 * N! * (C! + F!) + F! * C! * (blocks[type].bytes / blocks[type].numbers),
		operations: ({ N, C, F }) => 2 * N! * C! * F!,
		benchmarks: [
			{ N: 1, C: 2048, F: 2048, bias: 0 },
			{ N: 8, C: 2048, F: 2048, bias: 0 },
			{ N: 256, C: 2048, F: 2048, bias: 0 },
		],
	};
}

export const subjects: readonly Subject[] = (['f16', 'bf16', 'q8_0', 'q4_0', 'q4_k', 'q6_k'] as const).map(stored);
