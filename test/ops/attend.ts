import { attend } from '../../lib/ops/attend.js';
import { type Floats, type Input, type Precision, type Sizes, type Subject, uniform } from '../harness.js';

/** Sizes, and switches: causal, lengths, hard (scores of ±80). S of `capacity` rows are filled; the rest holds NaN. */
interface Case extends Sizes {
	B: number;
	T: number;
	S: number;
	H: number;
	G: number;
	D: number;
}

/** Keys that query t of sequence b sees: the first so many. */
function seen({ T, S, causal }: Case, lengths: ArrayLike<number> | undefined, b: number, t: number): number {
	return Math.max(0, Math.min(S, lengths?.[b] ?? S, causal ? S - T + t + 1 : S));
}

/** For every query and head: weights of the keys that it sees, relative to e^base. */
function weigher(sizes: Case, { q, k }: Readonly<Record<string, Floats>>, precision: Precision) {
	const { T, H, G, D, S, capacity = S } = sizes;
	const score = precision.zeros(S);
	const p = precision.zeros(S);
	return {
		p,
		/** Scores of the first n keys; the largest. */
		scores(b: number, t: number, h: number, n: number): number {
			const group = Math.floor((h * G) / H);
			let top = -Infinity;
			for (let j = 0; j < n; j++) {
				score[j] = 0;
				for (let d = 0; d < D; d++)
					score[j] = score[j]! + q![((b * T + t) * H + h) * D + d]! * k![((b * capacity + j) * G + group) * D + d]!;
				score[j] = score[j]! / Math.sqrt(D);
				top = Math.max(top, score[j]!);
			}
			return top;
		},
		weigh(n: number, base: number): void {
			for (let j = 0; j < n; j++) {
				p[j] = score[j]! - base;
				p[j] = Math.exp(p[j]!);
			}
		},
	};
}

const common = {
	inputs(sizes: Sizes, random: () => number) {
		const { B, T, S, H, G, D, lengths, hard, capacity = S } = sizes as Case;
		const inputs: Record<string, Input> = {
			q: uniform([B, T, H, D], random, hard ? 16 : 2),
			k: uniform([B, capacity, G, D], random, hard ? 5 : 1),
			v: uniform([B, capacity, G, D], random),
		};
		const data = Int32Array.from({ length: B }, (_, b) => (!lengths ? S : b === 0 ? 0 : b === 1 ? S + 5 : Math.ceil(S / 2)));
		if (lengths) inputs.lengths = { shape: [B], data };
		for (let b = 0; b < B; b++) {
			for (const name of ['k', 'v'])
				inputs[name]!.data.fill(NaN, (b * capacity + Math.min(S, data[b]!)) * G * D, (b + 1) * capacity * G * D);
		}
		return inputs;
	},
	reference(sizes: Sizes, inputs: Readonly<Record<string, Floats>>, precision: Precision) {
		const { B, T, S, H, G, D, capacity = S } = sizes as Case;
		const { p, scores, weigh } = weigher(sizes as Case, inputs, precision);
		const o = precision.zeros(B * T * H * D);
		const sum = precision.zeros(1);
		for (let b = 0; b < B; b++) {
			for (let t = 0; t < T; t++) {
				const n = seen(sizes as Case, inputs.lengths, b, t);
				for (let h = 0; n > 0 && h < H; h++) {
					weigh(n, scores(b, t, h, n));
					sum[0] = 0;
					for (let j = 0; j < n; j++) sum[0] = sum[0]! + p[j]!;
					for (let d = 0; d < D; d++) {
						const at = ((b * T + t) * H + h) * D + d;
						for (let j = 0; j < n; j++) o[at] = o[at]! + p[j]! * inputs.v![((b * capacity + j) * G + Math.floor((h * G) / H)) * D + d]!;
						o[at] = o[at]! / sum[0]!;
					}
				}
			}
		}
		return { o };
	},
	bytes: ({ B, T, S, H, G, D }: Sizes) => 4 * B! * D! * (2 * T! * H! + 2 * S! * G!),
	operations: ({ B, T, S, H, D }: Sizes) => 4 * B! * T! * S! * H! * D!,
};

const whole: Subject = {
	...common,
	name: 'attend',
	cases: [
		{ B: 1, T: 1, S: 2, H: 1, G: 1, D: 1 },
		{ B: 1, T: 1, S: 33, H: 4, G: 2, D: 5 },
		{ B: 2, T: 7, S: 7, H: 2, G: 2, D: 5, causal: 1 },
		{ B: 1, T: 33, S: 40, H: 3, G: 1, D: 32, causal: 1 },
		{ B: 3, T: 9, S: 20, H: 2, G: 2, D: 64, lengths: 1 },
		{ B: 3, T: 20, S: 20, H: 4, G: 2, D: 32, lengths: 1, causal: 1 },
		{ B: 1, T: 6, S: 4, H: 2, G: 1, D: 8, causal: 1 },
		{ B: 1, T: 35, S: 35, H: 2, G: 2, D: 128, hard: 1 },
		{ B: 2, T: 34, S: 70, H: 2, G: 1, D: 64, hard: 1, causal: 1 },
		{ B: 1, T: 130, S: 130, H: 1, G: 1, D: 16, causal: 1 },
	],
	run({ q, k, v, lengths }, { causal }) {
		return { o: attend(q!, k!, v!, { lengths, causal: Boolean(causal) }) };
	},
	gradient(sizes, inputs, { o: g }, precision) {
		const { B, T, S, H, G, D } = sizes as Case;
		const { q, k, v, lengths } = inputs;
		const { p, scores, weigh } = weigher(sizes as Case, inputs, precision);
		const { o } = common.reference(sizes, inputs, precision);
		const [dq, dk, dv] = [precision.zeros(q!.length), precision.zeros(k!.length), precision.zeros(v!.length)];
		const L = precision.zeros(1);
		const delta = precision.zeros(1);
		const ds = precision.zeros(1);
		for (let b = 0; b < B; b++) {
			for (let t = 0; t < T; t++) {
				const n = seen(sizes as Case, lengths, b, t);
				for (let h = 0; n > 0 && h < H; h++) {
					const at = ((b * T + t) * H + h) * D;
					const top = scores(b, t, h, n);
					weigh(n, top);
					L[0] = 0;
					for (let j = 0; j < n; j++) L[0] = L[0]! + p[j]!;
					L[0] = top + Math.log(L[0]!); // what the forward pass keeps
					weigh(n, L[0]!);
					delta[0] = 0;
					for (let d = 0; d < D; d++) delta[0] = delta[0]! + g![at + d]! * o[at + d]!;
					for (let j = 0; j < n; j++) {
						const from = ((b * S + j) * G + Math.floor((h * G) / H)) * D;
						ds[0] = 0;
						for (let d = 0; d < D; d++) ds[0] = ds[0]! + g![at + d]! * v![from + d]!;
						ds[0] = ds[0]! - delta[0]!;
						ds[0] = (ds[0]! * p[j]!) / Math.sqrt(D);
						for (let d = 0; d < D; d++) {
							dv[from + d] = dv[from + d]! + p[j]! * g![at + d]!;
							dq[at + d] = dq[at + d]! + ds[0]! * k![from + d]!;
							dk[from + d] = dk[from + d]! + ds[0]! * q![at + d]!;
						}
					}
				}
			}
		}
		return { q: dq, k: dk, v: dv };
	},
	benchmarks: [
		{ B: 1, T: 1, S: 4096, H: 8, G: 8, D: 64, causal: 1 },
		{ B: 1, T: 1024, S: 1024, H: 8, G: 8, D: 64, causal: 1 },
		{ B: 1, T: 1, S: 4096, H: 32, G: 8, D: 128, causal: 1 },
	],
};

/** A cache with room: no gradient. */
const partly: Subject = {
	...common,
	name: 'attend, some of the capacity filled',
	cases: [
		{ B: 1, T: 1, S: 1, H: 1, G: 1, D: 4, capacity: 2 },
		{ B: 2, T: 1, S: 33, H: 4, G: 2, D: 32, capacity: 64, causal: 1 },
		{ B: 3, T: 5, S: 40, H: 2, G: 2, D: 64, capacity: 41, causal: 1, lengths: 1 },
		{ B: 1, T: 40, S: 100, H: 2, G: 1, D: 5, capacity: 128, causal: 1 },
		{ B: 2, T: 1, S: 0, H: 2, G: 1, D: 8, capacity: 3 },
	],
	run({ q, k, v, lengths }, { S, causal }) {
		return { o: attend(q!, k!, v!, { lengths, causal: Boolean(causal), filled: S! }) };
	},
	benchmarks: [{ B: 1, T: 1, S: 2048, H: 8, G: 8, D: 64, causal: 1, capacity: 4096 }],
};

export const subjects: readonly Subject[] = [whole, partly];
