import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { evaluate, fit, loadModel, noGrad, Performer, type PerformerConfig, Random, State, saveModel } from '../../lib/index.js';
import { temporary } from '../files.js';
import { worst } from '../numbers.js';
import { Counting, Letters } from './sequences.js';

const mixers = ['performer', 'attention', 'aaren'] as const;
const config = { vocabulary: 7, dim: 16, layers: 2, heads: 2, hidden: 24, features: 12, seed: 3 } satisfies PerformerConfig;
const random = new Random(5);
const ids = (T: number) => Int32Array.from({ length: T }, () => random.integer(7));
const largest = (x: Float32Array) => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
/** As in test/layers/layers.test.ts. */
const close = (found: Float32Array, expected: Float32Array) =>
	expect(worst(found, expected)).toBeLessThan(64 * 2 ** -24 * largest(expected));
const logitsOf = (model: Performer, tokens: Parameters<Performer['forward']>[0], lengths?: number[]) =>
	noGrad(() => model.forward(tokens, undefined, { lengths })).read();

describe.each(mixers)('a causal model, %s', (mixer) => {
	const model = new Performer({ ...config, mixer });
	const [B, T] = [2, 31];
	const x = Array.from({ length: B }, () => ids(T));

	test('has the parameters of its parts', () => {
		const [C, F, V] = [16, 24, 7];
		const block = 4 * (C * C + C) + 4 * C + (C * F + F) + (F * C + C) + (mixer === 'aaren' ? C : 0);
		expect(model.parameterCount).toBe(V * C + 2 * block + 2 * C + (C * V + V));
	});

	test('all at once, in pieces and token by token agree', async () => {
		const whole = await logitsOf(model, x);
		expect(whole.length).toBe(B * T * 7);
		for (const lengthOf of [() => 1, () => 1 + random.integer(9)]) {
			using state = model.initialState({ batch: B });
			const found = new Float32Array(whole.length);
			for (let t = 0; t < T; ) {
				const n = Math.min(T - t, lengthOf());
				const piece = await model
					.forward(
						x.map((row) => row.subarray(t, t + n)),
						state,
					)
					.read();
				for (let b = 0; b < B; b++) found.set(piece.subarray(b * n * 7, (b + 1) * n * 7), (b * T + t) * 7);
				t += n;
			}
			expect(state.length).toBe(T);
			close(found, whole);
		}
	});

	test('no bit of a prediction knows what comes later', async () => {
		const before = await logitsOf(model, x[0]!);
		const changed = x[0]!.map((id, t) => (t >= 20 ? (id + 3) % 7 : id));
		const after = await logitsOf(model, changed);
		expect(after.subarray(0, 20 * 7)).toEqual(before.subarray(0, 20 * 7));
		expect(after.subarray(20 * 7)).not.toEqual(before.subarray(20 * 7));
	});

	test('only the last token, when only that is wanted', async () => {
		const whole = await logitsOf(model, x);
		const last = await noGrad(() => model.forward(x, undefined, { last: true })).read();
		close(last, Float32Array.from([0, 1].flatMap((b) => [...whole.subarray(((b + 1) * T - 1) * 7, (b + 1) * T * 7)])));
	});

	test('gradients flow to every parameter, and targets of −1 count for nothing', async () => {
		model.loss({ x, y: x }).backward();
		for (const [name, parameter] of model.parameters()) {
			// What all keys of a head have in common is not seen by attention, and Aaren leaves it out.
			const unseen = name.endsWith('mixer.k.bias') && mixer !== 'performer';
			if (!unseen) expect(largest(await parameter.grad!.read()), name).toBeGreaterThan(1e-5);
			parameter.grad?.dispose();
			parameter.grad = null;
		}
		const y = x.map((row, b) => row.map((id, t) => (b === 0 && t < 3 ? id : -1)));
		const logits = await logitsOf(model, x);
		const asked = [0, 1, 2].map((t) => {
			const row = [...logits.subarray(t * 7, t * 7 + 7)];
			return Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[x[0]![t]!]!;
		});
		const [loss] = await noGrad(() => model.loss({ x, y })).read();
		expect(loss).toBeCloseTo((asked[0]! + asked[1]! + asked[2]!) / 3, 5);
		const nothing = x.map((row) => row.map(() => -1));
		expect([...(await noGrad(() => model.loss({ x, y: nothing })).read())]).toEqual([0]);
	});

	test('saved and loaded: the same bits, the next tokens of a stream too', async () => {
		const folder = path.join(await temporary(), 'model');
		for (let step = 0; step < 3; step++) model.setTraining(true, step);
		model.setTraining(false);
		await saveModel(model, folder);
		const loaded = (await loadModel(folder)) as Performer;
		expect(loaded).toBeInstanceOf(Performer);
		expect(loaded.config).toEqual(model.config);
		expect(await logitsOf(loaded, x)).toEqual(await logitsOf(model, x));
		using state = model.initialState({ batch: B });
		model.forward(x, state);
		using restored = State.restore(await state.snapshot());
		expect(await loaded.forward(x, restored).read()).toEqual(await model.forward(x, state).read());
	});
});

test.each([
	['performer', {}],
	['performer', { featureKind: 'relu', redrawEvery: 30 }],
	['attention', {}],
] as const)('a tiny causal model learns a grammar with memory, to near its entropy: %s %o', async (mixer, more) => {
	const data = new Letters(1024, 24);
	const fresh = new Letters(128, 24, 99);
	using model = new Performer({ ...config, dim: 32, hidden: 64, features: 64, mixer, dropout: 0, ...more });
	const before = (await evaluate(model, fresh)).loss;
	for await (const _ of fit(model, data, { epochs: 4, batch: 32, rate: 5e-3, clip: 1, schedule: 'cosine', warmup: 20 }));
	const { loss } = await evaluate(model, fresh);
	expect(before).toBeGreaterThan(data.forgetful);
	// A tenth of what remembering the first token is worth may be missing.
	expect(loss).toBeLessThan(data.entropy + 0.1 * (data.forgetful - data.entropy));
});

test.each(['performer', 'attention'] as const)('a masked model fills in what was masked, from both sides: %s', async (mixer) => {
	const data = new Counting(1024, 12);
	using model = new Performer({
		...config,
		vocabulary: Counting.vocabulary,
		mask: Counting.mask,
		dim: 32,
		hidden: 64,
		features: 64,
		causal: false,
		mixer,
		dropout: 0,
	});
	for await (const _ of fit(model, data, { epochs: 12, batch: 32, rate: 5e-3, clip: 1, schedule: 'cosine', warmup: 20 }));
	let right = 0;
	let asked = 0;
	const { x, y } = new Counting(64, 12, 99).batch(Array.from({ length: 64 }, (_, i) => i));
	const logits = await logitsOf(model, x);
	for (const [b, row] of y.entries()) {
		for (const [t, target] of row.entries()) {
			if (target < 0) continue;
			const at = [...logits.subarray((b * 12 + t) * Counting.vocabulary, (b * 12 + t + 1) * Counting.vocabulary)];
			asked++;
			if (at.indexOf(Math.max(...at)) === target) right++;
		}
	}
	expect(asked).toBeGreaterThan(60);
	expect(right / asked).toBeGreaterThan(0.95); // who knows the token before alone is right half of the time
	expect(() => model.initialState()).toThrow('a state without `causal`');
});

test('tokens have places, unless that is not wanted', async () => {
	for (const mixer of ['performer', 'attention'] as const) {
		const changed: number[] = [];
		for (const more of [{}, { rope: false }]) {
			// One layer: with two, the second sees in what order the first saw.
			using model = new Performer({ ...config, layers: 1, mixer, ...more });
			const [a, b] = await Promise.all(
				[
					[1, 2, 3],
					[2, 1, 3],
				].map((tokens) => logitsOf(model, tokens)),
			);
			changed.push(worst(a!.subarray(14), b!.subarray(14)));
		}
		expect(changed[0]).toBeGreaterThan(1e-3);
		expect(changed[1]).toBeLessThan(1e-5);
	}
});

test('padding changes nothing: a short sequence beside a long one is as it is alone', async () => {
	const [short, long] = [ids(9), ids(14)];
	for (const mixer of ['performer', 'attention'] as const) {
		for (const causal of [false, true]) {
			using model = new Performer({ ...config, mixer, causal });
			const alone = await logitsOf(model, short);
			const padded = [...short, 0, 1, 2, 3, 4];
			const both = await logitsOf(model, [padded, long], [9, 14]);
			close(both.subarray(0, 9 * 7), alone);
			const y = [[...short, -1, -1, -1, -1, -1], [...long].fill(-1)];
			const [one] = await noGrad(() => model.loss({ x: short, y: short })).read();
			const [other] = await noGrad(() => model.loss({ x: [padded, long], y, lengths: [9, 14] })).read();
			expect(other).toBeCloseTo(one!, 5);
		}
	}
});

test('wrong use: one clear error, and the model still works', async () => {
	const make = (more: object) => () => new Performer({ ...config, ...more });
	expect(make({ vocabulary: 0 })).toThrow('Performer: vocabulary is 0, expected an integer from 1');
	expect(make({ mask: 7 })).toThrow('Performer: mask is 7, expected a token from 0 below 7');
	expect(make({ layers: 0 })).toThrow('Stack: layers is 0');
	expect(make({ mixer: 'mamba' })).toThrow('Block: mixer is mamba');
	expect(make({ mixer: 'aaren', causal: false })).toThrow('Block: mixer is aaren with causal false');
	expect(make({ features: 1.5 })).toThrow('features is 1.5');
	expect(make({ seed: -1 })).toThrow('seed is -1');
	using model = new Performer(config);
	const before = await logitsOf(model, [1, 2, 3]);
	expect(() => model.forward([1, 7])).toThrow(/7/);
	expect(() => model.forward([])).toThrow(/no tokens/);
	expect(() => model.forward([[1, 2], [1]])).toThrow(/sequence 1/);
	expect(() => model.loss({ x: [1, 2], y: [1] })).toThrow('Performer.loss: y is [1, 1], expected [1, 2] as x');
	expect(() => model.loss({ x: [1, 2], y: [1, -2] })).toThrow(/-2/);
	const state = model.initialState();
	expect(() => model.forward([1], state, { lengths: [1] })).toThrow('Performer.forward: lengths together with a state');
	expect(() => model.forward([1, 2], undefined, { lengths: [3] })).toThrow('lengths hold 3, expected integers from 0 to 2');
	expect(() => model.forward([1, 2], undefined, { lengths: [1, 1] })).toThrow('lengths are 2 numbers, expected 1');
	expect(state.length).toBe(0);
	expect(await logitsOf(model, [1, 2, 3])).toEqual(before);
	model.dispose();
	expect(() => model.forward([1])).toThrow(/disposed/);
	expect(() => model.initialState()).toThrow(/disposed/);
});
