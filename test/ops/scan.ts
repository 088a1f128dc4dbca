import { scan } from '../../lib/ops/scan.js';
import { type Floats, type Input, type Sizes, type Subject, uniform } from '../harness.js';

/** Sizes, and switches: state, lengths, reverse, hard (scores of ±80 and −∞, and NaN where nothing may look). */
interface Case extends Sizes {
	B: number;
	T: number;
	H: number;
	G: number;
	D: number;
}

/** Tokens of sequence b that take part, in walking order. */
function tokens({ T, reverse }: Sizes, lengths: ArrayLike<number> | undefined, b: number): number[] {
	const list = Array.from({ length: Math.min(T!, lengths?.[b] ?? T!) }, (_, t) => t);
	return reverse ? list.reverse() : list;
}

const plain: Case = { B: 1, T: 1, H: 1, G: 1, D: 1 };

export const subject: Subject = {
	name: 'scan',
	cases: [
		plain,
		{ ...plain, T: 7, D: 5 },
		{ B: 2, T: 33, H: 3, G: 3, D: 5 },
		{ B: 1, T: 65, H: 1, G: 1, D: 32 },
		{ B: 2, T: 31, H: 4, G: 2, D: 64, lengths: 1 },
		{ B: 1, T: 33, H: 17, G: 17, D: 128 },
		{ B: 3, T: 20, H: 6, G: 2, D: 32, state: 1 },
		{ B: 2, T: 50, H: 2, G: 1, D: 5, state: 1, reverse: 1 },
		{ B: 3, T: 45, H: 3, G: 3, D: 32, lengths: 1, reverse: 1 },
		{ B: 3, T: 37, H: 4, G: 4, D: 64, hard: 1 },
		{ B: 3, T: 70, H: 4, G: 2, D: 5, hard: 1, lengths: 1, state: 1 },
		{ B: 2, T: 70, H: 2, G: 2, D: 1, hard: 1, lengths: 1, reverse: 1 },
		{ B: 1, T: 3, H: 2, G: 1, D: 3, nothing: 1 },
		{ B: 1, T: 200, H: 1, G: 1, D: 8 },
		{ B: 1, T: 100, H: 4, G: 4, D: 16, state: 1 },
		// Long and wide enough for tiles (native/ops/scan_tiles.h).
		{ B: 1, T: 150, H: 1, G: 1, D: 520 },
		{ B: 1, T: 75, H: 4, G: 2, D: 530, state: 1 },
		{ B: 3, T: 140, H: 2, G: 2, D: 260, state: 1, lengths: 1, hard: 1 },
		{ B: 3, T: 140, H: 2, G: 1, D: 520, state: 1, lengths: 1, reverse: 1 },
		{ B: 1, T: 5, H: 30, G: 15, D: 300, reverse: 1 }, // many heads, few tokens: heads are shared out
	],
	constants: ['m'],

	inputs({ B, T, H, G, D, state, lengths, hard, nothing }: Case, random) {
		const s = uniform([B, T, H], random, hard ? 80 : 3).data;
		const v = uniform([B, T, G, D], random).data;
		const inputs: Record<string, Input> = { s: { shape: [B, T, H], data: s as Float32Array }, v: { shape: [B, T, G, D], data: v } };
		if (hard || nothing) {
			for (let i = 0; i < s.length; i++) if (nothing || random() < -0.4 || (i / H) % T < 2) s[i] = -Infinity;
			for (let row = 0; row < B * T; row++) {
				for (let g = 0; g < G; g++) {
					const masked = Array.from({ length: H / G }, (_, k) => s[row * H + (g * H) / G + k]).every((score) => score === -Infinity);
					if (masked) v.fill(NaN, (row * G + g) * D, (row * G + g + 1) * D);
				}
			}
		}
		if (lengths) {
			const data = Int32Array.from({ length: B }, (_, b) => (b === 0 ? 0 : b === 1 ? T + 5 : Math.ceil(T / 2)));
			data.forEach((length, b) => {
				for (let t = length; t < T; t++) {
					s.fill(NaN, (b * T + t) * H, (b * T + t + 1) * H);
					v.fill(NaN, (b * T + t) * G * D, (b * T + t + 1) * G * D);
				}
			});
			inputs.lengths = { shape: [B], data };
		}
		if (state) {
			inputs.m0 = { ...uniform([B, H], random, hard ? 60 : 2), differentiable: false };
			inputs.u0 = uniform([B, H], random, 1, 3);
			inputs.w0 = uniform([B, H, D], random, 2);
			const [m0, u0, w0] = [inputs.m0.data, inputs.u0.data, inputs.w0.data];
			m0[0] = -Infinity; // the first head has seen nothing
			u0[0] = 0;
			w0.fill(0, 0, D);
		}
		return inputs;
	},

	run({ s, v, m0, u0, w0, lengths }, { reverse }) {
		const state = m0 && { m: m0, u: u0!, w: w0! };
		const { o, state: after } = scan(s!, v!, { state, lengths, reverse: Boolean(reverse) });
		return { o, ...after };
	},

	reference(sizes, { s, v, m0, u0, w0, lengths }, precision, held) {
		const { B, T, H, G, D } = sizes as Case;
		const o = precision.zeros(B * T * H * D);
		const m = precision.zeros(B * H).fill(-Infinity);
		const u = precision.zeros(B * H);
		const w = precision.zeros(B * H * D);
		const p = precision.zeros(T + 1);
		for (let b = 0; b < B; b++) {
			const order = tokens(sizes, lengths, b);
			for (let h = 0; h < H; h++) {
				const bh = b * H + h;
				const group = Math.floor((h * G) / H);
				const score = (t: number) => s![(b * T + t) * H + h]!;
				/** Weights of the state (the last of p) and of the tokens up to order[n − 1], relative to e^top; their sum. */
				const weigh = (n: number, top: number, sum: Floats, at: number) => {
					p[T] = m0 ? m0[bh]! - top : -Infinity;
					p[T] = Math.exp(p[T]!);
					sum[at] = m0 ? p[T]! * u0![bh]! : 0;
					for (let i = 0; i < n; i++) {
						p[i] = score(order[i]!) - top;
						p[i] = Math.exp(p[i]!);
						sum[at] = sum[at]! + p[i]!;
					}
				};
				const mean = (n: number, to: Floats, at: number) => {
					for (let d = 0; d < D; d++) {
						to[at + d] = m0 ? p[T]! * w0![bh * D + d]! : 0;
						for (let i = 0; i < n; i++) {
							if (p[i]! > 0) to[at + d] = to[at + d]! + p[i]! * v![((b * T + order[i]!) * G + group) * D + d]!;
						}
					}
				};
				const sum = precision.zeros(1);
				let top = m0?.[bh] ?? -Infinity;
				for (let k = 0; k < order.length; k++) {
					top = Math.max(top, score(order[k]!));
					if (top === -Infinity) continue;
					weigh(k + 1, top, sum, 0);
					const at = ((b * T + order[k]!) * H + h) * D;
					mean(k + 1, o, at);
					for (let d = 0; d < D; d++) o[at + d] = o[at + d]! / sum[0]!;
				}
				m[bh] = held ? held.m![bh]! : top;
				if (order.length === 0) {
					if (u0) u[bh] = u0[bh]!;
					if (w0) w.set(w0.subarray(bh * D, (bh + 1) * D), bh * D);
				}
				if (m[bh] === -Infinity || order.length === 0) continue;
				weigh(order.length, m[bh]!, u, bh);
				mean(order.length, w, bh * D);
			}
		}
		return { o, m, u, w };
	},

	/** The recurrences of algorithms B, from the last token to the first; differences of the definition hold them to it. */
	gradient(sizes, inputs, { o: g, u: du, w: dw }, precision) {
		const { B, T, H, G, D } = sizes as Case;
		const { s, v, m0, u0, lengths } = inputs;
		const { o, m } = this.reference(sizes, inputs, precision);
		const ds = precision.zeros(B * T * H);
		const dv = precision.zeros(B * T * G * D);
		const du0 = precision.zeros(m0 ? B * H : 0);
		const dw0 = precision.zeros(m0 ? B * H * D : 0);
		const L = precision.zeros(T); // m + ln u of every prefix
		const sumG = precision.zeros(D); // G_i = g_i + ρ_i G_(i+1)
		const sumD = precision.zeros(1); // D_i = g_i · o_i + ρ_i D_(i+1)
		const dot = precision.zeros(2); // g · o and v · G
		const e = precision.zeros(1);
		const exp = (x: number, base: number) => {
			e[0] = x - base;
			e[0] = Math.exp(e[0]!);
			return e[0]!;
		};
		for (let b = 0; b < B; b++) {
			const order = tokens(sizes, lengths, b);
			for (let h = 0; h < H; h++) {
				const bh = b * H + h;
				const group = Math.floor((h * G) / H);
				const score = (k: number) => s![(b * T + order[k]!) * H + h]!;
				let top = m0?.[bh] ?? -Infinity;
				const u = precision.of([u0?.[bh] ?? 0]);
				for (let k = 0; k < order.length; k++) {
					const next = Math.max(top, score(k));
					if (next > -Infinity) u[0] = exp(top, next) * u[0]! + exp(score(k), next);
					top = next;
					L[k] = top + Math.log(u[0]!);
				}
				const last = order.length - 1;
				const seed = order.length === 0 ? 1 : m![bh] === -Infinity ? 0 : exp(L[last]!, m![bh]!);
				sumD[0] = -seed * du![bh]!;
				for (let d = 0; d < D; d++) sumG[d] = seed * dw![bh * D + d]!;
				for (let k = last; k >= 0 && L[k]! > -Infinity; k--) {
					const row = b * T + order[k]!;
					const at = (row * H + h) * D;
					const from = (row * G + group) * D;
					const rho = k === last ? 1 : exp(L[k]!, L[k + 1]!);
					const p = exp(score(k), L[k]!);
					dot.fill(0);
					for (let d = 0; d < D; d++) {
						sumG[d] = g![at + d]! + rho * sumG[d]!;
						dot[0] = dot[0]! + g![at + d]! * o![at + d]!;
						if (p === 0) continue; // its v may be anything
						dot[1] = dot[1]! + v![from + d]! * sumG[d]!;
						dv[from + d] = dv[from + d]! + p * sumG[d]!;
					}
					sumD[0] = dot[0]! + rho * sumD[0]!;
					if (p > 0) ds[row * H + h] = p * (dot[1]! - sumD[0]!);
				}
				if (!m0) continue;
				const back = order.length === 0 ? 1 : m0[bh] === -Infinity ? 0 : exp(m0[bh]!, L[0]!);
				du0[bh] = -back * sumD[0]!;
				for (let d = 0; d < D; d++) dw0[bh * D + d] = back * sumG[d]!;
			}
		}
		return m0 ? { s: ds, v: dv, u0: du0, w0: dw0 } : { s: ds, v: dv };
	},

	threadsMatter: ({ B }) => B! % 2 !== 0, // time or heads are shared out where batches do not suffice
	bytes: ({ B, T, H, G, D }) => 4 * B! * (T! * (H! + G! * D! + H! * D!) + H! * (D! + 2)),
	operations: ({ B, T, H, D }) => B! * T! * H! * (3 * D! + 8),
	benchmarks: [
		{ B: 1, T: 1, H: 8, G: 8, D: 64, state: 1 },
		{ B: 1, T: 4096, H: 8, G: 8, D: 64 },
		{ B: 16, T: 1024, H: 8, G: 8, D: 64 },
		{ B: 1, T: 262_144, H: 8, G: 8, D: 64 },
	],
};
