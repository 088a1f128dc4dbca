import { type FavorOptions, favor, favorKinds } from '../../lib/ops/favor.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import { type Features, featuresOf, omegaOf } from '../favor_reference.js';
import { type Floats, type Input, type Precision, type Sizes, type Subject, uniform } from '../harness.js';

/**
 * Sizes, and switches: kind (place among favorKinds), causal, state, lengths, hard (scores of ±80), gentle (small numbers), iid. epsilon: in millionths
 * (0 where the gradient is held against differences: there, max a is a constant only up to ε).
 */
interface Case extends Sizes {
	B: number;
	T: number;
	H: number;
	G: number;
	D: number;
	E: number;
	M: number;
	kind: number;
}

function optionsOf({ D, M, kind, epsilon, iid }: Case): FavorOptions & { epsilon: number } {
	const name = favorKinds[kind]!;
	const usual = kind < 3 ? 1e-6 : name === 'trigonometric' ? 0 : 1e-3;
	return {
		kind: name,
		dim: D,
		features: M,
		seed: 5,
		epsilon: epsilon === undefined ? usual : epsilon * 1e-6,
		projection: iid ? 'iid' : 'orthogonal',
	};
}

/** One key-value head of one sequence: its features, where c stands at every token, and the state as it moves (algorithms C.5). */
function headOf(sizes: Case, inputs: Readonly<Record<string, Floats>>, b: number, g: number, precision: Precision) {
	const { T, H, G, D, E, M, causal } = sizes;
	const options = optionsOf(sizes);
	const omega = omegaOf(options);
	const { q, k, v, c0, z0, S0, lengths } = inputs;
	const length = Math.min(T, lengths?.[b] ?? T);
	const bg = b * G + g;
	const features = (tokens: Floats, at: number) => featuresOf(options.kind!, omega, options.epsilon, tokens, at * D, D, precision);
	const keys = Array.from({ length }, (_, t) => features(k!, (b * T + t) * G + g));
	const start = c0?.[bg] ?? -Infinity;
	let end = start;
	const running = keys.map(({ scale }) => (end = Math.max(end, scale[0]!)));
	const e = precision.zeros(1);
	/** e^(from − to); nothing weighs nothing. */
	const fade = (from: number, to: number) => {
		if (from === -Infinity) return 0;
		e[0] = from - to;
		e[0] = Math.exp(e[0]!);
		return e[0]!;
	};
	const z = precision.of(z0 ? z0.subarray(bg * M, (bg + 1) * M) : new Float32Array(M));
	const S = precision.of(S0 ? S0.subarray(bg * M * E, (bg + 1) * M * E) : new Float32Array(M * E));
	const times = (of: Floats, factor: number) => {
		for (let i = 0; i < of.length; i++) of[i] = factor * of[i]!;
	};
	return {
		omega,
		keys,
		length,
		start,
		end,
		/** c as token t sees it. */
		at: (t: number) => (causal ? running[t]! : end),
		heads: Array.from({ length: H / G }, (_, r) => (g * H) / G + r),
		row: (t: number, h: number) => (b * T + t) * H + h,
		query: (t: number, h: number) => features(q!, (b * T + t) * H + h),
		value: (t: number) => v!.subarray(((b * T + t) * G + g) * E, ((b * T + t) * G + g + 1) * E),
		fade,
		times,
		z,
		S,
		/** Token t joins (z, S), which stand at `from` and then at `to`. */
		join(t: number, from: number, to: number) {
			const [keep, weight] = [fade(from, to), fade(keys[t]!.scale[0]!, to)];
			times(z, keep);
			times(S, keep);
			for (let m = 0; m < M; m++) {
				const part = weight * keys[t]!.psi[m]!;
				z[m] = z[m]! + part;
				for (let d = 0; d < E; d++) S[m * E + d] = S[m * E + d]! + part * v![((b * T + t) * G + g) * E + d]!;
			}
		},
		/** What each token sees of (z, S), in order: `see(t)` is called when they stand at t. */
		walk(see: (t: number) => void) {
			for (let t = 0; t < length; t++) {
				this.join(t, t > 0 ? running[t - 1]! : start, running[t]!);
				if (causal) see(t);
			}
			for (let t = 0; !causal && t < length; t++) see(t);
		},
	};
}

/** ψ(q)·ψ(k) and the like. */
function dot(a: Floats, b: ArrayLike<number>, precision: Precision, step = 1, from = 0): number {
	const sum = precision.zeros(1);
	for (let i = 0; i < a.length; i++) sum[0] = sum[0]! + a[i]! * b[from + i * step]!;
	return sum[0]!;
}

const small: Case = { B: 1, T: 3, H: 1, G: 1, D: 3, E: 2, M: 12, kind: 0, causal: 1, epsilon: 0 };
/**
 * Signed features can make a normaliser of nearly nothing, where every method is as wrong as its luck: ε, or small inputs, keep it away
 * from 0. Exponentials that are not relative to the largest are small here too, or one number decides what the rounding error is.
 */
const conditionOf = (name: string): { epsilon: number; gentle?: number } =>
	['gelu', 'cos', 'tanh', 'identity'].includes(name)
		? { epsilon: 2_000_000, gentle: 1 }
		: name === 'trigonometric'
			? { epsilon: 0, gentle: 1 }
			: { epsilon: ['hyperbolic', 'regularised'].includes(name) ? 0 : 1000, gentle: ['exp', 'elu'].includes(name) ? 1 : 0 };
const kindOf = (name: string) => favorKinds.indexOf(name as (typeof favorKinds)[number]);

export const subject: Subject = {
	name: 'linearAttention',
	cases: [
		{ ...small, T: 1, D: 1, E: 1, M: 2 },
		small,
		{ ...small, causal: 0 },
		{ ...small, B: 2, T: 5, H: 2, lengths: 1 },
		{ ...small, B: 2, T: 4, state: 1 },
		...favorKinds.slice(1).map((name, i) => ({ ...small, B: 2, T: 4, kind: i + 1, ...conditionOf(name) })),
		{ ...small, T: 4, kind: kindOf('trigonometric'), causal: 0, ...conditionOf('trigonometric') },
		{ ...small, B: 2, T: 33, H: 4, G: 2, D: 5, E: 7, M: 20, epsilon: 1 },
		{ ...small, B: 2, T: 40, H: 2, G: 1, D: 8, E: 33, M: 33, kind: kindOf('relu'), epsilon: 1000, state: 1, lengths: 1 },
		{ ...small, B: 2, T: 31, H: 2, G: 2, D: 16, E: 16, M: 32, kind: kindOf('hyperbolic'), causal: 0, lengths: 1 },
		{ ...small, B: 3, T: 70, H: 2, G: 1, D: 8, E: 8, M: 16, state: 1, lengths: 1, epsilon: 1 },
		{ ...small, T: 9, H: 2, G: 1, D: 16, E: 4, M: 300, iid: 1 },
		{ ...small, B: 2, T: 40, D: 16, E: 3, M: 24, hard: 1, epsilon: 1 },
		{ ...small, B: 2, T: 35, D: 16, E: 3, M: 24, hard: 1, epsilon: 1, state: 1, lengths: 1 },
		{ ...small, B: 1, T: 40, D: 16, E: 3, M: 24, hard: 1, epsilon: 1, causal: 0 },
		{ ...small, T: 600, H: 1, D: 4, E: 3, M: 8 }, // beyond a mark
		{ ...small, T: 515, H: 2, D: 4, E: 3, M: 8, state: 1, kind: kindOf('elu'), epsilon: 1000 },
	],
	constants: ['c'],

	inputs(sizes, random) {
		const { B, T, H, G, D, E, M, state, lengths, hard, gentle, kind } = sizes as Case;
		// Scores q·k / √D of up to ±80.
		const size = hard ? Math.sqrt(80 / Math.sqrt(D)) * 1.7 : gentle ? 0.3 : 1.5;
		const inputs: Record<string, Input> = {
			q: uniform([B, T, H, D], random, size),
			k: uniform([B, T, G, D], random, size),
			v: uniform([B, T, G, E], random),
		};
		if (lengths) {
			const data = Int32Array.from({ length: B }, (_, b) => (b === 0 ? Math.ceil(T / 2) : b === 1 ? T + 5 : 0));
			inputs.lengths = { shape: [B], data };
			data.forEach((length, b) => {
				const [q, k, v] = [inputs.q!.data, inputs.k!.data, inputs.v!.data];
				if (length >= T) return;
				q.fill(NaN, (b * T + length) * H * D, (b + 1) * T * H * D);
				k.fill(NaN, (b * T + length) * G * D, (b + 1) * T * G * D);
				v.fill(NaN, (b * T + length) * G * E, (b + 1) * T * G * E);
			});
		}
		if (state) {
			inputs.c0 = { ...uniform([B, G], random, hard ? 30 : 1), differentiable: false };
			if (kind > 3) inputs.c0.data.fill(0);
			inputs.z0 = uniform([B, G, M], random, 1, 2);
			inputs.S0 = uniform([B, G, M, E], random, 2);
			inputs.c0.data[0] = -Infinity; // the first head has seen nothing
			inputs.z0.data.fill(0, 0, M);
			inputs.S0.data.fill(0, 0, M * E);
		}
		return inputs;
	},

	run({ q, k, v, c0, z0, S0, lengths }, sizes) {
		const features = favor({ ...optionsOf(sizes as Case), device: q!.device });
		const state = c0 && { c: c0, z: z0!, S: S0! };
		const { o, state: after } = linearAttention(q!, k!, v!, { features, causal: Boolean(sizes.causal), state, lengths });
		return { o, ...after };
	},

	reference(sizes, inputs, precision, held) {
		const { B, T, H, G, E, M } = sizes as Case;
		const o = precision.zeros(B * T * H * E);
		const c = precision.zeros(B * G);
		const z = precision.zeros(B * G * M);
		const S = precision.zeros(B * G * M * E);
		for (let b = 0; b < B; b++) {
			for (let g = 0; g < G; g++) {
				const bg = b * G + g;
				const head = headOf(sizes as Case, inputs, b, g, precision);
				head.walk((t) => {
					for (const h of head.heads) {
						const { psi } = head.query(t, h);
						const R = dot(psi, head.z, precision);
						for (let e = 0; e < E; e++) o[head.row(t, h) * E + e] = dot(psi, head.S, precision, E, e) / R;
					}
				});
				// Where a derivative is taken, c stays where it was.
				c[bg] = held ? held.c![bg]! : head.end;
				const shift = head.end === c[bg] ? 1 : head.fade(head.end, c[bg]!);
				head.times(head.z, shift);
				head.times(head.S, shift);
				z.set(head.z, bg * M);
				S.set(head.S, bg * M * E);
			}
		}
		return { o, c, z, S };
	},

	/** Algorithms C.7: forward with S for queries, then backward with T for keys; max a is a constant. */
	gradient(sizes, inputs, { o: g, z: dz, S: dS }, precision) {
		const { B, T, G, D, E, M, causal } = sizes as Case;
		const { o } = this.reference(sizes, inputs, precision);
		const { q, k, v, c0 } = inputs;
		const [dq, dk, dv] = [precision.zeros(q!.length), precision.zeros(k!.length), precision.zeros(v!.length)];
		const dz0 = precision.zeros(c0 ? dz!.length : 0);
		const dS0 = precision.zeros(c0 ? dS!.length : 0);
		const part = precision.zeros(1);
		const factor = precision.of([D ** -0.25]);
		for (let b = 0; b < B; b++) {
			for (let n = 0; n < G; n++) {
				const bg = b * G + n;
				const head = headOf(sizes as Case, inputs, b, n, precision);
				const { omega, keys, length, start, end, at, fade, times } = head;
				/** From ∂ψ (of keys, times e^ℓ) to a token. */
				const toToken = ({ x, psi, slope, sign }: Features, dpsi: Floats, to: Floats, from: number, scaled: boolean) => {
					const along = scaled && sign ? sign * dot(dpsi, psi, precision) : 0;
					for (let m = 0; m < M; m++) dpsi[m] = dpsi[m]! * slope[m]!;
					for (let d = 0; d < D; d++) {
						part[0] = along * x[d]!;
						for (let m = 0; m < M; m++) part[0] = part[0]! + omega[m * D + d]! * dpsi[m]!;
						to[from + d] = part[0]! * factor[0]!;
					}
				};
				const up = new Map<number, { psi: Floats; g: Floats; r: number }>(); // by row: [ĝ | r]
				head.walk((t) => {
					for (const h of head.heads) {
						const row = head.row(t, h);
						const query = head.query(t, h);
						const R = dot(query.psi, head.z, precision);
						const mine = precision.of(Array.from({ length: E }, (_, e) => g![row * E + e]! / R));
						const r = -dot(mine, o!, precision, 1, row * E);
						const dpsi = precision.zeros(M);
						for (let m = 0; m < M; m++) dpsi[m] = dot(mine, head.S, precision, 1, m * E) + head.z[m]! * r;
						toToken(query, dpsi, dq, row * D, false);
						up.set(row, { psi: query.psi, g: mine, r });
					}
				});
				// T, relative to where c stands at the token in turn.
				const Tz = precision.of(dz!.subarray(bg * M, (bg + 1) * M));
				const TS = precision.of(dS!.subarray(bg * M * E, (bg + 1) * M * E));
				const take = (t: number) => {
					for (const h of head.heads) {
						const { psi, g: mine, r } = up.get(head.row(t, h))!;
						for (let m = 0; m < M; m++) {
							Tz[m] = Tz[m]! + psi[m]! * r;
							for (let e = 0; e < E; e++) TS[m * E + e] = TS[m * E + e]! + psi[m]! * mine[e]!;
						}
					}
				};
				for (let t = 0; !causal && t < length; t++) take(t);
				for (let t = length - 1; t >= 0; t--) {
					if (causal) {
						const keep = t === length - 1 ? fade(at(t), end) : fade(at(t), at(t + 1));
						times(Tz, keep);
						times(TS, keep);
						take(t);
					}
					const weight = fade(keys[t]!.scale[0]!, at(t));
					const u = precision.zeros(M);
					const to = ((b * T + t) * G + n) * E;
					for (let m = 0; m < M; m++) {
						u[m] = dot(head.value(t), TS, precision, 1, m * E) + Tz[m]!;
						u[m] = u[m]! * weight;
					}
					for (let e = 0; e < E; e++) dv[to + e] = weight * dot(keys[t]!.psi, TS, precision, E, e);
					toToken(keys[t]!, u, dk, ((b * T + t) * G + n) * D, true);
				}
				if (!c0) continue;
				const first = length > 0 ? at(0) : end;
				for (let m = 0; m < M; m++) dz0[bg * M + m] = fade(start, first) * Tz[m]!;
				for (let i = 0; i < M * E; i++) dS0[bg * M * E + i] = fade(start, first) * TS[i]!;
			}
		}
		return c0 ? { q: dq, k: dk, v: dv, z0: dz0, S0: dS0 } : { q: dq, k: dk, v: dv };
	},

	bytes: ({ B, T, H, G, D, E, M }) => 4 * B! * (T! * (H! + G!) * (D! + E!) + G! * M! * (E! + 1)),
	operations: ({ B, T, H, G, D, E, M }) => 2 * B! * T! * (H! + G!) * M! * (D! + E!),
	benchmarks: [
		{ B: 1, T: 1, H: 8, G: 8, D: 64, E: 64, M: 256, kind: 0, causal: 1, state: 1 },
		{ B: 1, T: 4096, H: 8, G: 8, D: 64, E: 64, M: 256, kind: 0, causal: 1 },
		{ B: 1, T: 16_384, H: 8, G: 8, D: 64, E: 64, M: 256, kind: 0, causal: 1 },
	],
};
