import { blocks, type WeightType } from '../../lib/io/pretrained.js';
import { embed } from '../../lib/ops/embed.js';
import { generator, type Sizes, type Subject, uniform } from '../harness.js';
import { weightsOf } from './linear_stored.js';

/** The first and the last row, and any between. */
function ids({ N, V }: Sizes): Int32Array {
	const random = generator(N!);
	return Int32Array.from({ length: N! }, (_, n) => (n === 0 ? V! - 1 : n === 1 ? 0 : Math.floor(((random() + 1) / 2) * V!)));
}

const tokens = (sizes: Sizes) => (sizes.same ? new Int32Array(sizes.N!).fill(sizes.V! - 2) : ids(sizes));

function stored(type: WeightType): Subject {
	const { numbers, bytes } = blocks[type];
	const whole = (C: number) => Math.ceil(C / numbers) * numbers;
	return {
		name: `embed, w of ${type}`,
		cases: [
			{ N: 1, V: 1, C: whole(1) },
			{ N: 5, V: 3, C: whole(17) },
			{ N: 33, V: 100, C: whole(70) },
			{ N: 130, V: 50, C: whole(520) },
		],
		// What tells where to write the result; the numbers are in the weights.
		inputs: () => ({ device: { shape: [1], data: new Float32Array(1), differentiable: false } }),
		run: ({ device }, sizes) => ({ y: embed(ids(sizes), weightsOf(type, sizes.V!, sizes.C!).on(device!.device)) }),
		reference(sizes, _, precision) {
			const { N, V, C } = sizes;
			const { numbers: w } = weightsOf(type, V!, C!);
			const y = precision.zeros(N! * C!);
			ids(sizes).forEach((id, n) => {
				y.set(w.subarray(id * C!, (id + 1) * C!), n * C!);
			});
			return { y };
		},
		bytes: ({ N, C }) => 4 * N! + N! * C! * (4 + bytes / numbers),
		operations: ({ N, C }) => N! * C!,
		benchmarks: [
			{ N: 1, V: 32_000, C: 2048 },
			{ N: 512, V: 32_000, C: 2048 },
		],
	};
}

/** A table of f32 is an input, and has a gradient. `same`: every token is the last but one. */
const trained: Subject = {
	name: 'embed, w of f32 in training',
	cases: [
		{ N: 1, V: 1, C: 1 },
		{ N: 5, V: 3, C: 17 },
		{ N: 7, V: 100, C: 33 },
		{ N: 33, V: 100, C: 70 },
		{ N: 300, V: 2, C: 5 },
		{ N: 500, V: 25, C: 64 },
		{ N: 300, V: 7, C: 20, same: 1 },
		{ N: 1500, V: 25, C: 130 },
		{ N: 130, V: 900, C: 300 },
	],
	inputs: ({ V, C }, random) => ({ w: uniform([V!, C!], random) }),
	run: ({ w }, sizes) => ({ y: embed(tokens(sizes), w!) }),
	reference(sizes, { w }, precision) {
		const { N, C } = sizes;
		const y = precision.zeros(N! * C!);
		tokens(sizes).forEach((id, n) => {
			y.set(w!.subarray(id * C!, (id + 1) * C!), n * C!);
		});
		return { y };
	},
	gradient(sizes, { w }, { y: g }, precision) {
		const { C } = sizes;
		const dw = precision.zeros(w!.length);
		tokens(sizes).forEach((id, n) => {
			for (let c = 0; c < C!; c++) dw[id * C! + c] = dw[id * C! + c]! + g![n * C! + c]!;
		});
		return { w: dw };
	},
	bytes: ({ N, C }) => 4 * N! * (1 + 2 * C!),
	operations: ({ N, C }) => N! * C!,
	benchmarks: [
		{ N: 512, V: 32_000, C: 2048 },
		{ N: 8192, V: 25, C: 256 },
	],
};

export const subjects: readonly Subject[] = [...(['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k', 'q6_k'] as const).map(stored), trained];
