/** What the scan promises beyond its definition: it may be cut anywhere, and it goes on for ever. */
import { describe, expect, test } from 'vitest';
import { noGrad } from '../lib/autograd.js';
import { type DeviceName, devices, setThreads } from '../lib/device.js';
import { ShapeError } from '../lib/errors.js';
import * as ops from '../lib/ops/index.js';
import { type ScanState, scan } from '../lib/ops/scan.js';
import { type Tensor, tensor } from '../lib/tensor.js';
import { apart, generator, isSlow, largest, uniform, worst } from './harness.js';

const random = generator(3);

/** 0 = cuts[0] < … < T, at random places. */
function randomCuts(T: number): number[] {
	const inside = Array.from({ length: T - 1 }, (_, i) => i + 1).filter(() => random() > 0.6);
	return [0, ...inside, T];
}

interface Problem {
	readonly B: number;
	readonly T: number;
	readonly H: number;
	readonly G: number;
	readonly D: number;
	readonly s: Tensor;
	readonly v: Tensor;
}

function problem(device: DeviceName, hard: boolean): Problem {
	const [B, T, H, G, D] = isSlow(device) ? [2, 19, 2, 1, 5] : [2, 77, 4, 2, 40];
	const s = uniform([B, T, H], random, hard ? 80 : 2).data;
	for (let i = 0; hard && i < s.length; i++) if (random() < -0.5) s[i] = -Infinity;
	return {
		B,
		T,
		H,
		G,
		D,
		s: tensor(s as Float32Array, [B, T, H], { device }),
		v: tensor(uniform([B, T, G, D], random).data as Float32Array, [B, T, G, D], { device }),
	};
}

/** o and the final state, token ranges between the cuts one after the other. */
async function inPieces({ s, v }: Problem, cuts: readonly number[], inPlace: boolean): Promise<Record<string, Float32Array>> {
	const parts: Tensor[] = [];
	let state: ScanState | undefined;
	const o = noGrad(() => {
		for (let i = 0; i + 1 < cuts.length; i++) {
			const [from, to] = [cuts[i]!, cuts[i + 1]!];
			const step = scan(ops.slice(s, 1, from, to), ops.slice(v, 1, from, to), { state, inPlace });
			if (inPlace && state) expect(step.state).toBe(state);
			state = step.state;
			parts.push(step.o);
		}
		return ops.concat(parts, 1);
	});
	return { o: await o.read(), m: await state!.m.read(), u: await state!.u.read(), w: await state!.w.read() };
}

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	test.each([false, true])('all at once = in pieces = one by one (scores of ±80 and −∞: %s)', async (hard) => {
		const whole = problem(device, hard);
		const once = await inPieces(whole, [0, whole.T], false);
		const everywhere = Array.from({ length: whole.T + 1 }, (_, t) => t);
		const ways = [randomCuts(whole.T), randomCuts(whole.T), everywhere];
		for (const cuts of ways) {
			for (const inPlace of [false, true]) {
				const pieces = await inPieces(whole, cuts, inPlace);
				expect(pieces.m).toEqual(once.m);
				for (const name of ['o', 'u', 'w']) {
					expect(worst(pieces[name]!, once[name]!), `${name}, cut at ${cuts}`).toBeLessThanOrEqual(apart(whole.T, largest(once[name]!)));
				}
			}
		}
	});

	test('a state from one end joined with one from the other is that of all', async () => {
		const { s, v, T } = problem(device, true);
		const whole = scan(s, v).state;
		const cut = Math.floor(T / 3);
		const [left, right] = [
			scan(ops.slice(s, 1, 0, cut), ops.slice(v, 1, 0, cut)).state,
			scan(ops.slice(s, 1, cut, T), ops.slice(v, 1, cut, T)).state,
		];
		for (const both of [ops.join(left, right), ops.join(right, left)]) {
			expect(await both.m.read()).toEqual(await whole.m.read());
			for (const name of ['u', 'w'] as const) {
				const expected = await whole[name].read();
				expect(worst(await both[name].read(), expected)).toBeLessThanOrEqual(apart(T, largest(expected)));
			}
		}
	});

	test.each([false, true])('gradients pass through the state: two pieces are one (scores of ±80 and −∞: %s)', async (hard) => {
		const { B, T, H, G, D, s, v } = problem(device, hard);
		const weight = tensor(uniform([B, T, H, D], random).data as Float32Array, [B, T, H, D], { device });
		const gradients = async (cuts: readonly number[]) => {
			s.grad = v.grad = null;
			s.requiresGrad = v.requiresGrad = true;
			const parts: Tensor[] = [];
			let state: ScanState | undefined;
			for (let i = 0; i + 1 < cuts.length; i++) {
				const piece = scan(ops.slice(s, 1, cuts[i]!, cuts[i + 1]!), ops.slice(v, 1, cuts[i]!, cuts[i + 1]!), { state });
				state = piece.state;
				parts.push(piece.o);
			}
			ops.sum(ops.reshape(ops.mul(ops.concat(parts, 1), weight), [B * T * H * D]), 0).backward();
			return { s: await s.grad!.read(), v: await v.grad!.read() };
		};
		const whole = await gradients([0, T]);
		expect(whole.v.length).toBe(B * T * G * D);
		for (const cuts of [[0, 1, T], [0, Math.floor(T / 2), T], [0, T - 1, T], randomCuts(T)]) {
			const pieces = await gradients(cuts);
			// A weight is e to the power of a difference of numbers of at most 80 + ln T, rounded: each factor is off by as many roundings.
			const exponent = hard ? 80 + Math.log(T) : 2 + Math.log(T);
			for (const name of ['s', 'v'] as const) {
				const scale = largest(whole[name]) * (1 + exponent);
				expect(worst(pieces[name], whole[name]), `${name}, cut at ${cuts}`).toBeLessThanOrEqual(apart(T, scale));
			}
		}
	});

	test('reverse is the same from the other end', async () => {
		const { s, v, B, T, H, G, D } = problem(device, false);
		const flip = async (x: Tensor) => {
			const width = x.size / (B * T);
			const data = await x.read();
			const flipped = new Float32Array(data.length);
			for (let b = 0; b < B; b++)
				for (let t = 0; t < T; t++) flipped.set(data.subarray((b * T + t) * width, (b * T + t + 1) * width), (b * T + T - 1 - t) * width);
			return flipped;
		};
		const backwards = scan(tensor(await flip(s), [B, T, H], { device }), tensor(await flip(v), [B, T, G, D], { device }), {
			reverse: true,
		});
		const forwards = scan(s, v);
		expect(worst(await flip(backwards.o), await forwards.o.read())).toBeLessThanOrEqual(apart(T, 1));
		expect(await backwards.state.m.read()).toEqual(await forwards.state.m.read());
	});

	test('inPlace leaves the state alone where gradients are recorded: they need it as it was', async () => {
		const { s, v } = problem(device, false);
		const first = scan(s, v).state;
		const before = await first.w.read();
		s.requiresGrad = true;
		const next = scan(s, v, { state: first, inPlace: true });
		expect(next.state).not.toBe(first);
		expect(await first.w.read()).toEqual(before);
		expect(noGrad(() => scan(s, v, { state: first, inPlace: true }).state)).toBe(first);
		expect(await first.w.read()).toEqual(await next.state.w.read());
	});

	test('outputs: false gives the same state and no output', async () => {
		const { s, v } = problem(device, false);
		const [many, one] = [scan(s, v), scan(s, v, { outputs: false })];
		expect(one.o).toBeNull();
		for (const name of ['m', 'u', 'w'] as const) expect(await one.state[name].read()).toEqual(await many.state[name].read());
	});

	test('what came before stays as it is, however many tokens without weight follow', async () => {
		const T = isSlow(device) ? 2_000 : 100_000;
		const s = new Float32Array(T).fill(-60);
		s.set([0.3, -1.1, 0.7]);
		const v = new Float32Array(T);
		v.set([1, 0.9, 1.1]);
		try {
			for (const threads of [1, 2]) {
				setThreads(threads);
				const found = await scan(tensor(s, [1, T, 1], { device }), tensor(v, [1, T, 1, 1], { device })).o.read();
				// One walk keeps it to the bit. In tiles, the first one's sum is added in another order, once; then it stays, too.
				if (threads === 1 || device !== 'cpu') expect(found[T - 1]).toBe(found[3]);
				expect(Math.abs(found[T - 1]! - found[3]!)).toBeLessThanOrEqual(apart(3, largest(found)));
				expect(found[T - 1]).toBe(found[T / 2]);
			}
		} finally {
			setThreads(0);
		}
		const state = { m: tensor([0], [1, 1], { device }), u: tensor([1.7], [1, 1], { device }), w: tensor([1.3], [1, 1, 1], { device }) };
		const [nothing, value] = [tensor([-60], [1, 1, 1], { device }), tensor([5], [1, 1, 1, 1], { device })];
		noGrad(() => {
			for (let t = 0; t < Math.min(T, 10_000); t++) scan(nothing, value, { state, inPlace: true }).o.dispose();
		});
		expect([(await state.u.read())[0], (await state.w.read())[0]]).toEqual([Math.fround(1.7), Math.fround(1.3)]);
	});

	test('an early NaN is an answer, not a crash: it stays', async () => {
		const { o } = scan(tensor([0, NaN, 1], [1, 3, 1], { device }), tensor([1, 2, 3], [1, 3, 1, 1], { device }));
		const found = [...(await o.read())];
		expect(found[0]).toBe(1);
		expect(found.slice(1)).toEqual([NaN, NaN]);
	});
});

test('wrong arguments', () => {
	const [s, v] = [ops.zeros([2, 3, 4]), ops.zeros([2, 3, 4, 5])];
	expect(() => scan(s, ops.zeros([2, 3, 3, 5]))).toThrow(
		new ShapeError('scan: 4 heads of scores, expected a multiple of the 3 groups of values'),
	);
	expect(() => scan(s, ops.zeros([2, 4, 4, 5]))).toThrow(ShapeError);
	expect(() => scan(s, v, { lengths: ops.zeros([2]) })).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
	expect(() => scan(s, v, { lengths: ops.lengths([1, 2, 3]) })).toThrow(ShapeError);
	expect(() => scan(s, v, { state: { m: ops.zeros([2, 4]), u: ops.zeros([2, 4]), w: ops.zeros([2, 4, 6]) } })).toThrow(ShapeError);
});
