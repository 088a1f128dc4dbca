/**
 * What a bounded cache does to one token, as plain loops (binding.d.ts, cacheAttend): test/ops/cache_attend.ts and
 * test/cache_steps.test.ts hold the operations against it.
 */
import type { Floats, Precision, Sizes } from './harness.js';

/**
 * Sizes, and switches. `calls` of T tokens each, over caches that are empty at first. `rule` 0 to 3 as in binding.d.ts; `own`: P = G;
 * `f16`: as the cache stores; `turned`: keys lie unturned, 1 for halves and 2 for neighbours; `ragged`: sequences bring fewer than T
 * tokens, another number at every call; `hard`: scores of ±80; `received`: is asked for.
 */
export interface Case extends Sizes {
	B: number;
	calls: number;
	T: number;
	H: number;
	G: number;
	D: number;
	S: number;
}

/** The switches that native code takes as numbers, and what stands for them when they are left out. */
export function rulesOf({ rule = 1, sinks = 0, recent = 0, keep = 0, reach = 2 ** 31 - 1, own, G }: Case) {
	return { rule, sinks, recent, keep: Math.fround(keep), reach, P: own ? G : 1 };
}

/** How many of its T tokens are real for sequence b at a call: 0 and T are among them. */
export function lengthOf({ T, ragged }: Case, call: number, b: number): number {
	return ragged ? (2 * call + b) % (T + 1) : T;
}

/** Tokens of sequence b before a call. */
export function seenBefore(sizes: Case, call: number, b: number): number {
	let n = 0;
	for (let before = 0; before < call; before++) n += lengthOf(sizes, before, b);
	return n;
}

/** What one sequence holds, for P choosers. Slots that nothing was put into are as the caller left them. */
export interface Held {
	readonly keys: Floats;
	readonly values: Floats;
	readonly positions: Floats;
	readonly scores: Floats;
	readonly ranks: Floats;
}

/** Positions and ranks of slots that hold nothing; their keys, values and scores are NaN. */
export const NOTHING = -7;

export function nothingHeld({ S, G, D }: Case, P: number, precision: Precision): Held {
	return {
		keys: precision.zeros(S * G * D).fill(NaN),
		values: precision.zeros(S * G * D).fill(NaN),
		positions: precision.zeros(P * S).fill(NOTHING),
		scores: precision.zeros(P * S).fill(NaN),
		ranks: precision.zeros(P * S).fill(NOTHING),
	};
}

/** The slot that goes of a full cache; S: the new entry itself. */
function victim(sizes: Case, p: number, position: number, fresh: number, held: Held): number {
	const { S } = sizes;
	const { rule, sinks, recent } = rulesOf(sizes);
	const entries = Array.from({ length: S + 1 }, (_, j) => ({
		slot: j,
		position: j < S ? held.positions[p * S + j]! : position,
		score: rule !== 2 ? 0 : j < S ? held.scores[p * S + j]! : fresh,
	})).filter((entry) => entry.position >= sinks && entry.position <= position - recent);
	entries.sort((a, b) => a.score - b.score || a.position - b.position);
	const [first, second] = entries;
	// Where rounding decides, precisions go their own ways: such inputs say nothing.
	if (rule === 2 && second && second.score - first!.score < 2e-6 * Math.max(1, second.score))
		throw new Error('two scores that are too near');
	return first!.slot;
}

/** One head turned by a row of the table. */
function turnedBy(row: number, { D, turned }: Case, x: ArrayLike<number>, at: number, table: Floats | undefined, to: Floats): Floats {
	for (let p = 0; p < D / 2; p++) {
		const [i, j] = turned === 2 ? [2 * p, 2 * p + 1] : [p, p + D / 2];
		const [cos, sin] = turned ? [table![row * D + 2 * p]!, table![row * D + 2 * p + 1]!] : [1, 0];
		to[i] = x[at + i]! * cos - x[at + j]! * sin;
		to[j] = x[at + i]! * sin + x[at + j]! * cos;
	}
	if (D % 2) to[D - 1] = x[at + D - 1]!;
	return to;
}

export interface Token {
	readonly q: Floats;
	readonly k: Floats;
	readonly v: Floats;
	readonly position: number;
}

/** One token of one sequence: its output [H, D], what each entry received [P, S + 1], and what is held afterwards. */
export function step(sizes: Case, { q, k, v, position }: Token, table: Floats | undefined, held: Held, precision: Precision) {
	const { H, G, D, S, turned } = sizes;
	const { rule, keep, reach, P } = rulesOf(sizes);
	const filled = Math.min(position, S);
	const o = precision.zeros(H * D);
	const received = precision.zeros(P * (S + 1));
	const p = precision.zeros(S + 1);
	const sum = precision.zeros(1);
	const [query, key] = [precision.zeros(D), precision.zeros(D)];
	for (let h = 0; h < H; h++) {
		const g = Math.floor((h * G) / H);
		const chooser = P === 1 ? 0 : g;
		turnedBy(filled, sizes, q, h * D, table, query);
		let top = -Infinity;
		for (let j = 0; j <= filled; j++) {
			const fresh = j === filled;
			turnedBy(fresh ? filled : held.ranks[chooser * S + j]!, sizes, fresh ? k : held.keys, (fresh ? g : g * S + j) * D, table, key);
			p[j] = 0;
			for (let d = 0; d < D; d++) p[j] = p[j]! + query[d]! * key[d]!;
			p[j] = p[j]! / Math.sqrt(D);
			if (!fresh && held.positions[chooser * S + j]! <= position - reach) p[j] = -Infinity;
			top = Math.max(top, p[j]!);
		}
		sum[0] = 0;
		for (let j = 0; j <= filled; j++) {
			p[j] = p[j]! - top;
			p[j] = Math.exp(p[j]!);
			sum[0] = sum[0]! + p[j]!;
		}
		for (let j = 0; j <= filled; j++) {
			p[j] = p[j]! / sum[0]!;
			const to = chooser * (S + 1) + (j === filled ? S : j);
			received[to] = received[to]! + p[j]!;
			const value = j === filled ? v.subarray(g * D) : held.values.subarray((g * S + j) * D);
			for (let d = 0; d < D; d++) o[h * D + d] = o[h * D + d]! + p[j]! * value[d]!;
		}
	}
	if (P === 1) for (let j = 0; j <= S; j++) received[j] = received[j]! / H;
	for (let chooser = 0; chooser < P; chooser++) {
		const row = chooser * S;
		for (let j = 0; rule === 2 && j < filled; j++) {
			held.scores[row + j] = keep * held.scores[row + j]!;
			held.scores[row + j] = held.scores[row + j]! + received[chooser * (S + 1) + j]!;
		}
		const fresh = rule === 2 ? received[chooser * (S + 1) + S]! : 0;
		if (filled === S && rule === 3) continue;
		const slot = filled < S ? filled : victim(sizes, chooser, position, fresh, held);
		if (slot === S) continue;
		const gone = filled < S ? S : held.ranks[row + slot]!;
		for (let j = 0; turned && j < filled; j++) if (held.ranks[row + j]! > gone) held.ranks[row + j] = held.ranks[row + j]! - 1;
		if (turned) held.ranks[row + slot] = filled < S ? filled : S - 1;
		held.positions[row + slot] = position;
		held.scores[row + slot] = fresh;
		for (let g = 0; g < G; g++) {
			if (P !== 1 && g !== chooser) continue;
			held.keys.set(k.subarray(g * D, (g + 1) * D), (g * S + slot) * D);
			held.values.set(v.subarray(g * D, (g + 1) * D), (g * S + slot) * D);
		}
	}
	return { o, received };
}
