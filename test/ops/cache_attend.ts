import { binding } from '../../lib/binding.js';
import { cast } from '../../lib/ops/cast.js';
import { concat, slice } from '../../lib/ops/elementwise.js';
import { Tensor } from '../../lib/tensor.js';
import { type Case, type Held, lengthOf, NOTHING, nothingHeld, rulesOf, seenBefore, step } from '../cache_reference.js';
import { type Floats, type Input, type Precision, type Sizes, type Subject, uniform } from '../harness.js';
import { half } from '../io/dequantize.js';
import { halfBits } from '../io/quantize.js';

function inputs(sizes: Sizes, random: () => number): Record<string, Input> {
	const { B, calls, T, H, G, D, S, hard, turned } = sizes as Case;
	const made: Record<string, Input> = {
		q: uniform([B, calls * T, H, D], random, hard ? 16 : 3),
		k: uniform([B, calls * T, G, D], random, hard ? 5 : 1),
		v: uniform([B, calls * T, G, D], random),
	};
	for (let i = 0; i < B * calls * T; i++) {
		const [b, call, t] = [Math.floor(i / (calls * T)), Math.floor(i / T) % calls, i % T];
		if (t < lengthOf(sizes as Case, call, b)) continue;
		for (const { shape, data } of Object.values(made)) data.fill(NaN, i * shape[2]! * D, (i + 1) * shape[2]! * D); // padding
	}
	if (turned) {
		const data = Float32Array.from({ length: (S + 1) * D }, (_, i) => {
			const angle = Math.floor(i / D) * 100 ** (-2 * (((i % D) >> 1) / D));
			return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
		});
		made.table = { shape: [S + 1, D / 2, 2], data };
	}
	return made;
}

function reference(sizes: Sizes, { q, k, v, table }: Readonly<Record<string, Floats>>, precision: Precision) {
	const { B, calls, T, H, G, D, S, f16, turned, received: asked } = sizes as Case;
	const { rule, P } = rulesOf(sizes as Case);
	const stored = (x: Floats) => (f16 ? precision.of(x.map((each) => half(halfBits(each)))) : x);
	const o = precision.zeros(B * calls * T * H * D);
	const received = precision.zeros(B * calls * P * (S + 1));
	const all: Record<string, Floats> = {
		keys: precision.zeros(B * S * G * D),
		values: precision.zeros(B * S * G * D),
		positions: precision.zeros(B * P * S),
		scores: precision.zeros(B * P * S),
		ranks: precision.zeros(B * P * S),
	};
	for (let b = 0; b < B; b++) {
		const held = nothingHeld(sizes as Case, P, precision);
		for (let call = 0; call < calls; call++) {
			for (let t = 0; t < lengthOf(sizes as Case, call, b); t++) {
				const at = (b * calls + call) * T + t;
				const token = {
					q: q!.subarray(at * H * D, (at + 1) * H * D),
					k: stored(k!.subarray(at * G * D, (at + 1) * G * D)),
					v: stored(v!.subarray(at * G * D, (at + 1) * G * D)),
					position: seenBefore(sizes as Case, call, b) + t,
				};
				const given = step(sizes as Case, token, table, held, precision);
				o.set(given.o, at * H * D);
				received.set(given.received, (b * calls + call) * P * (S + 1));
			}
		}
		for (const [name, numbers] of Object.entries(held)) all[name]!.set(numbers, b * numbers.length);
	}
	const { keys, values, positions, scores, ranks } = all as Record<keyof Held, Floats>;
	const results: Record<string, Floats> = { o, keys, values, positions };
	if (rule === 2) results.scores = scores;
	if (turned) results.ranks = ranks;
	if (asked) results.received = received;
	return results;
}

function run({ q, k, v, table }: Readonly<Record<string, Tensor>>, sizes: Sizes): Record<string, Tensor> {
	const { B, calls, T, H, G, D, S, f16, turned, ragged, received: asked } = sizes as Case;
	const { rule, sinks, recent, keep, reach, P } = rulesOf(sizes as Case);
	const { device } = q!;
	const ints = (shape: readonly number[], data: Int32Array) => Tensor.empty(shape, device, 'i32', data);
	const rows = () => {
		const bits = f16 ? new Uint16Array(B * S * G * D).fill(0x7e00) : new Float32Array(B * S * G * D).fill(NaN);
		return Tensor.empty([B, S, G, D], device, f16 ? 'f16' : 'f32', bits);
	};
	const [keys, values] = [rows(), rows()];
	const positions = ints([B, P, S], new Int32Array(B * P * S).fill(NOTHING));
	const ranks = turned ? ints([B, P, S], new Int32Array(B * P * S).fill(NOTHING)) : null;
	const scores = Tensor.empty([B, P, S], device, 'f32', new Float32Array(B * P * S).fill(NaN));
	const outputs: Tensor[] = [];
	const receipts: Tensor[] = [];
	for (let call = 0; call < calls; call++) {
		const part = (x: Tensor) => slice(x, 1, call * T, (call + 1) * T).buffer;
		const o = Tensor.empty([B, T, H, D], device);
		const received = asked ? Tensor.empty([B, 1, P, S + 1], device) : null;
		const each = (count: (b: number) => number) =>
			ints(
				[B],
				Int32Array.from({ length: B }, (_, b) => count(b)),
			);
		const seen = each((b) => seenBefore(sizes as Case, call, b));
		const lengths = ragged ? each((b) => lengthOf(sizes as Case, call, b)) : null;
		binding.cacheAttend(
			part(q!),
			part(k!),
			part(v!),
			keys.buffer,
			values.buffer,
			positions.buffer,
			scores.buffer,
			ranks?.buffer ?? null,
			table?.buffer ?? null,
			seen.buffer,
			lengths?.buffer ?? null,
			o.buffer,
			received?.buffer ?? null,
			B,
			T,
			H,
			G,
			D,
			S,
			P,
			rule,
			sinks,
			recent,
			keep,
			reach,
			f16 ? 1 : 0,
			turned === 2,
		);
		outputs.push(o);
		if (received) receipts.push(received);
	}
	const results: Record<string, Tensor> = { o: concat(outputs, 1), keys: cast(keys, 'f32'), values: cast(values, 'f32'), positions };
	if (rule === 2) results.scores = scores;
	if (ranks) results.ranks = ranks;
	if (asked) results.received = concat(receipts, 1);
	return results;
}

/** All of the rules over three shapes of heads, then what each switch does. */
const cases: readonly Case[] = [
	{ B: 1, calls: 1, T: 1, H: 1, G: 1, D: 1, S: 1 },
	{ B: 1, calls: 1, T: 6, H: 2, G: 1, D: 8, S: 6, rule: 0 },
	{ B: 2, calls: 3, T: 2, H: 4, G: 2, D: 20, S: 7, rule: 0, own: 1 },
	{ B: 1, calls: 9, T: 1, H: 2, G: 2, D: 8, S: 1, rule: 1 },
	{ B: 1, calls: 9, T: 1, H: 2, G: 2, D: 8, S: 1, rule: 2 },
	{ B: 1, calls: 1, T: 90, H: 4, G: 2, D: 8, S: 9, rule: 1 },
	{ B: 2, calls: 30, T: 1, H: 4, G: 2, D: 20, S: 9, rule: 1, sinks: 3, own: 1 },
	{ B: 1, calls: 1, T: 90, H: 4, G: 2, D: 8, S: 9, rule: 2 },
	{ B: 1, calls: 1, T: 60, H: 4, G: 2, D: 64, S: 17, rule: 2, own: 1 },
	{ B: 2, calls: 12, T: 5, H: 3, G: 1, D: 20, S: 16, rule: 2, keep: 1, recent: 8 },
	{ B: 2, calls: 60, T: 1, H: 4, G: 4, D: 8, S: 12, rule: 2, keep: 1, recent: 5, sinks: 2, own: 1, received: 1 },
	{ B: 1, calls: 40, T: 1, H: 6, G: 2, D: 128, S: 11, rule: 2, keep: 0.9, sinks: 4, received: 1 },
	{ B: 1, calls: 40, T: 1, H: 4, G: 2, D: 8, S: 8, rule: 2, sinks: 3, recent: 5, received: 1 },
	{ B: 2, calls: 20, T: 1, H: 4, G: 2, D: 8, S: 8, rule: 3, received: 1 },
	{ B: 2, calls: 20, T: 1, H: 4, G: 2, D: 20, S: 8, rule: 3, received: 1, own: 1, turned: 1 },
	{ B: 2, calls: 10, T: 1, H: 4, G: 2, D: 8, S: 16, rule: 0, received: 1, reach: 4 },
	{ B: 1, calls: 1, T: 50, H: 2, G: 1, D: 8, S: 20, rule: 1, reach: 7 },
	{ B: 1, calls: 40, T: 1, H: 2, G: 2, D: 20, S: 12, rule: 2, keep: 1, reach: 1, received: 1, own: 1, sinks: 2, recent: 10 },
	{ B: 1, calls: 1, T: 50, H: 4, G: 2, D: 8, S: 12, rule: 2, turned: 1 },
	{ B: 1, calls: 1, T: 50, H: 4, G: 2, D: 8, S: 12, rule: 2, turned: 2, own: 1, sinks: 1 },
	{ B: 3, calls: 9, T: 5, H: 4, G: 2, D: 20, S: 12, rule: 1, turned: 2, sinks: 4, ragged: 1 },
	{ B: 3, calls: 12, T: 4, H: 4, G: 4, D: 64, S: 13, rule: 2, keep: 1, recent: 6, turned: 1, own: 1, ragged: 1 },
	{ B: 4, calls: 16, T: 3, H: 2, G: 1, D: 8, S: 10, rule: 2, ragged: 1, f16: 1 },
	{ B: 1, calls: 30, T: 1, H: 4, G: 2, D: 20, S: 16, rule: 2, keep: 1, f16: 1, own: 1, turned: 1, received: 1 },
	{ B: 1, calls: 1, T: 40, H: 2, G: 1, D: 128, S: 33, rule: 1, f16: 1, turned: 2 },
	{ B: 1, calls: 1, T: 60, H: 4, G: 2, D: 64, S: 40, rule: 1, hard: 1 },
	{ B: 1, calls: 1, T: 60, H: 4, G: 2, D: 128, S: 35, rule: 1, hard: 1, f16: 1, sinks: 4 },
	{ B: 2, calls: 1, T: 40, H: 4, G: 2, D: 8, S: 20, rule: 0, hard: 1, ragged: 1 },
	// Parts of 32 slots, shared by threads: one sequence, and several.
	{ B: 1, calls: 1, T: 50, H: 4, G: 4, D: 1024, S: 35, rule: 2, keep: 1, recent: 20 },
	{ B: 2, calls: 2, T: 20, H: 4, G: 4, D: 1024, S: 33, rule: 1, turned: 1, own: 1 },
	{ B: 3, calls: 2, T: 40, H: 4, G: 4, D: 1024, S: 34, rule: 1, f16: 1, ragged: 1 },
	{ B: 1, calls: 40, T: 1, H: 4, G: 4, D: 1024, S: 34, rule: 1, received: 1, reach: 3 },
];

export const subject: Subject = {
	name: 'cacheAttend',
	cases,
	inputs,
	run,
	reference,
	bytes: ({ B, calls, T, H, G, D, S, f16 }) => B! * calls! * T! * D! * (8 * (H! + G!) + 2 * S! * G! * (f16 ? 2 : 4)),
	operations: ({ B, calls, T, H, D, S }) => 4 * B! * calls! * T! * H! * (S! + 1) * D!,
	benchmarks: [
		{ B: 1, calls: 1, T: 1, H: 32, G: 8, D: 64, S: 512, rule: 2 },
		{ B: 1, calls: 1, T: 1, H: 32, G: 8, D: 64, S: 4096, rule: 2 },
	],
};
