import { binding } from '../../lib/binding.js';
import { Tensor } from '../../lib/tensor.js';
import { type Floats, type Sizes, type Subject, uniform } from '../harness.js';

/** Sizes as binding.d.ts has them; `own`: every group of heads chooses for itself (P = G, a sum), else all together (P = 1, a mean). */
interface Case extends Sizes {
	B: number;
	T: number;
	S: number;
	H: number;
	G: number;
	D: number;
	capacity: number;
	first: number;
	own: 0 | 1;
}

/** q · k_j / √D of every key j that query t sees: S − T + t + 1 of them, and none where that is below 1. */
function scores({ T, S, H, G, D, capacity }: Case, q: Floats, k: Floats, b: number, t: number, h: number, to: Floats): number {
	const seen = Math.max(0, S - T + t + 1);
	for (let j = 0; j < seen; j++) {
		const row = ((b * capacity + j) * G + Math.floor((h * G) / H)) * D;
		to[j] = 0;
		for (let d = 0; d < D; d++) to[j] = to[j]! + q[((b * T + t) * H + h) * D + d]! * k[row + d]!;
		to[j] = to[j]! / Math.sqrt(D);
	}
	return seen;
}

/** L [B, T, H]: ln Σ e^score, −∞ where nothing is seen. */
function logSums(sizes: Case, q: Floats, k: Floats): Float32Array {
	const { B, T, H, S } = sizes;
	const to = new Float64Array(S);
	return Float32Array.from({ length: B * T * H }, (_, i) => {
		const seen = scores(sizes, q, k, Math.floor(i / (T * H)), Math.floor(i / H) % T, i % H, to);
		const top = Math.max(...to.subarray(0, seen));
		return seen === 0 ? -Infinity : top + Math.log(to.subarray(0, seen).reduce((sum, score) => sum + Math.exp(score - top), 0));
	});
}

const cases: readonly Case[] = [
	{ B: 1, T: 1, S: 1, H: 1, G: 1, D: 8, capacity: 1, first: 0, own: 0 },
	{ B: 2, T: 5, S: 9, H: 4, G: 2, D: 8, capacity: 12, first: 0, own: 0 },
	{ B: 2, T: 5, S: 9, H: 4, G: 2, D: 20, capacity: 9, first: 2, own: 1 },
	{ B: 1, T: 30, S: 30, H: 6, G: 2, D: 64, capacity: 33, first: 29, own: 1 },
	{ B: 1, T: 30, S: 30, H: 3, G: 1, D: 64, capacity: 33, first: 29, own: 0 },
	{ B: 1, T: 3, S: 150, H: 2, G: 2, D: 8, capacity: 150, first: 1, own: 1 },
	{ B: 3, T: 70, S: 70, H: 4, G: 4, D: 16, capacity: 80, first: 64, own: 1 },
	{ B: 1, T: 140, S: 200, H: 6, G: 2, D: 20, capacity: 210, first: 0, own: 0 },
	{ B: 1, T: 70, S: 70, H: 2, G: 1, D: 128, capacity: 70, first: 70, own: 0 },
	{ B: 1, T: 9, S: 4, H: 2, G: 1, D: 8, capacity: 8, first: 0, own: 0 }, // the first queries see nothing
	{ B: 2, T: 4, S: 0, H: 2, G: 1, D: 8, capacity: 3, first: 0, own: 1 },
];

export const subject: Subject = {
	name: 'cacheReceived',
	cases,
	inputs(sizes, random) {
		const { B, T, S, H, G, D, capacity, own } = sizes as Case;
		const q = uniform([B, T, H, D], random, 2);
		const k = uniform([B, capacity, G, D], random, 2);
		for (let b = 0; b < B; b++) k.data.fill(NaN, (b * capacity + S) * G * D, (b + 1) * capacity * G * D); // slots that are free
		const L = { shape: [B, T, H], data: logSums(sizes as Case, q.data as Float32Array, k.data as Float32Array) };
		return { q, k, L, before: uniform([B, own ? G : 1, capacity], random) };
	},
	run({ q, k, L, before }, sizes) {
		const { B, T, S, H, G, D, capacity, first, own } = sizes as Case;
		const received = Tensor.empty(before!.shape, before!.device);
		binding.copyBlock(before!.buffer, received.buffer, 1, before!.size, before!.size, 0, before!.size, 0);
		binding.cacheReceived(q!.buffer, k!.buffer, L!.buffer, received.buffer, B, T, S, H, G, D, capacity, first, own ? G : 1);
		return { received };
	},
	reference(sizes, { q, k, L, before }, precision) {
		const { B, T, S, H, G, capacity, first, own } = sizes as Case;
		const P = own ? G : 1;
		const received = precision.of(before!);
		const sums = precision.zeros(B * P * capacity);
		const to = precision.zeros(S);
		for (let b = 0; b < B; b++) {
			for (let h = 0; h < H; h++) {
				const chooser = (b * P + (own ? Math.floor((h * G) / H) : 0)) * capacity;
				for (let t = first; t < T; t++) {
					const seen = scores(sizes as Case, q!, k!, b, t, h, to);
					for (let j = 0; j < seen; j++) sums[chooser + j] = sums[chooser + j]! + Math.exp(to[j]! - L![(b * T + t) * H + h]!);
				}
			}
		}
		for (let i = 0; i < sums.length; i++) received[i] = received[i]! + (own ? sums[i]! : sums[i]! / H);
		return { received };
	},
	bytes: ({ B, T, S, H, G, D, own }) => 4 * B! * (T! * H! * (D! + 1) + S! * G! * D! + 2 * S! * (own ? G! : 1)),
	operations: ({ B, T, S, H, D }) => 2 * B! * T! * S! * H! * D!,
	benchmarks: [{ B: 1, T: 512, S: 512, H: 16, G: 4, D: 64, capacity: 512, first: 0, own: 0 }],
};
