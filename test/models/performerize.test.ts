import { describe, expect, test } from 'vitest';
import { ArgumentError, DisposedError } from '../../lib/errors.js';
import { State } from '../../lib/layers/state.js';
import { Llama } from '../../lib/models/llama.js';
import { PerformerDecoderLayer } from '../../lib/models/performerize_layer.js';
import { worst } from '../numbers.js';
import { names, pathOf, pieces, tokensFor } from './llama/models.js';
import { held, logitsBy, logitsOf, type Made, makeModel, randomTokens, sizes } from './performerize_models.js';

describe('with exact attention', () => {
	test.each(names)('%s: logits are those of Llama', async (name) => {
		using model = await Llama.load(await pathOf(name));
		using exact = await model.performerize({ attention: 'softmax' });
		const tokens = [await tokensFor(model, 100, 1), await tokensFor(model, 100, 2)];
		const right = [...(await logitsBy(model, tokens[0]!)), ...(await logitsBy(model, tokens[1]!))];
		expect(worst(await logitsOf(exact, tokens), right)).toBeLessThanOrEqual(1e-4);
	});

	const others: Record<string, Made> = {
		'biases, pairs of halves, a head of its own': {
			biases: ['q', 'k', 'v'],
			tied: false,
			gentle: 1,
			config: { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' },
		},
		'weights in bf16': { half: true },
		'scaled positions': {
			config: { rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 16 }, max_position_embeddings: 64 },
		},
	};
	test.each(Object.entries(others))('%s', async (_, made) => {
		using model = await makeModel(made);
		using exact = await model.performerize({ attention: 'softmax' });
		const tokens = randomTokens(60, 3);
		expect(worst(await logitsOf(exact, tokens), await logitsBy(model, tokens))).toBeLessThanOrEqual(1e-4);
		expect([...exact.parameters().values()].every(({ dtype, requiresGrad }) => dtype === 'f32' && requiresGrad)).toBe(true);
		expect(exact.parameters().has('lm_head.weight')).toBe(made.tied === false);
	});

	test('a sliding window holds as long as the sequence fits into it; FAVOR+ has none', async () => {
		using model = await makeModel({ config: { architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 16 } });
		using exact = await model.performerize({ attention: 'softmax' });
		const tokens = randomTokens(17, 3);
		const first = tokens.subarray(0, 16);
		expect(worst(await logitsOf(exact, first), await logitsBy(model, first))).toBeLessThanOrEqual(1e-4);
		expect(() => logitsOf(exact, tokens)).toThrow('sequences of 17 tokens, expected at most the 16');
		using performer = await model.performerize({ features: 16 });
		expect((await logitsOf(performer, tokens)).length).toBe(17 * sizes.vocabulary);
	});
});

describe('with features', () => {
	test.each(['softmax', 'hyperbolic'] as const)('%s: logits come nearer to the exact ones as 1/√M', async (kind) => {
		using model = await makeModel({ gentle: 0.25 });
		const tokens = randomTokens(64, 4);
		const right = await logitsBy(model, tokens);
		const seeds = 8;
		const errors: number[] = [];
		for (const features of [32, 128, 512]) {
			let squares = 0;
			for (let seed = 0; seed < seeds; seed++) {
				using performer = await model.performerize({ features, kind, seed });
				const found = await logitsOf(performer, tokens);
				squares += found.reduce((sum, x, i) => sum + (x - right[i]!) ** 2, 0) / found.length;
			}
			errors.push(Math.sqrt(squares / seeds));
		}
		const size = Math.sqrt(right.reduce((sum, x) => sum + x * x, 0) / right.length);
		expect(errors[2]! / size).toBeLessThan(0.05);
		// Four times the features, half the error; a little more while few features miss the rare large ones.
		for (const i of [1, 2]) expect(Math.abs(Math.log2(errors[i - 1]! / errors[i]!) - 1)).toBeLessThan(0.4);
	});

	test('regularised features and ReLU are something else', async () => {
		using model = await makeModel();
		const tokens = randomTokens(32, 4);
		const right = await logitsBy(model, tokens);
		for (const kind of ['relu', 'regularised'] as const) {
			using performer = await model.performerize({ features: 512, kind });
			expect(worst(await logitsOf(performer, tokens), right)).toBeGreaterThan(0.1);
		}
	});

	test('a key-value head that several query heads share is as good as copies of it', async () => {
		const { heads, kvHeads, headDim, dim } = sizes;
		let drawn = new Map<string, Float32Array>();
		using grouped = await makeModel({ alter: (numbers) => (drawn = new Map(numbers)) });
		using apart = await makeModel({
			sizes: { ...sizes, kvHeads: heads },
			alter(numbers) {
				for (const [name, rows] of drawn) {
					if (!/[kv]_proj.weight/.test(name)) numbers.set(name, rows);
					const head = headDim * dim;
					for (let h = 0; h < heads && /[kv]_proj.weight/.test(name); h++) {
						const g = Math.floor((h * kvHeads) / heads);
						numbers.get(name)!.set(rows.subarray(g * head, (g + 1) * head), h * head);
					}
				}
			},
		});
		const tokens = randomTokens(50, 5);
		using one = await grouped.performerize({ features: 24, seed: 3 });
		using other = await apart.performerize({ features: 24, seed: 3 });
		expect(worst(await logitsOf(one, tokens), await logitsOf(other, tokens))).toBeLessThanOrEqual(1e-4);
	});

	test('each layer draws its own Ω, and each seed others', async () => {
		using model = await makeModel();
		const drawn: string[] = [];
		for (const seed of [0, 1]) {
			using performer = await model.performerize({ features: 8, seed });
			for (const module of performer.modules()) {
				if (module instanceof PerformerDecoderLayer) drawn.push((await module.features!.omega.read()).join());
			}
		}
		expect(new Set(drawn).size).toBe(2 * sizes.layers);
	});

	test('no logits know what comes later, to the bit', async () => {
		using model = await makeModel();
		using performer = await model.performerize({ features: 16 });
		const tokens = randomTokens(70, 6);
		const whole = await logitsOf(performer, tokens);
		const other = await logitsOf(performer, tokens.with(40, (tokens[40]! + 1) % sizes.vocabulary));
		const V = sizes.vocabulary;
		expect(other.subarray(0, 40 * V)).toEqual(whole.subarray(0, 40 * V));
		expect(other.subarray(40 * V, 41 * V)).not.toEqual(whole.subarray(40 * V, 41 * V));
	});
});

describe('with a state', () => {
	const V = sizes.vocabulary;
	const tokens = [randomTokens(90, 7), randomTokens(90, 8)];
	const cut = (rows: readonly Int32Array[], from: number, to: number) => rows.map((row) => row.subarray(from, to));

	test.each(['softmax', 'relu'] as const)('%s: token by token and cut anywhere, as all at once', async (kind) => {
		using model = await makeModel();
		using performer = await model.performerize({ features: 20, kind });
		const whole = await logitsOf(performer, tokens);
		for (const most of [1, 7, 60]) {
			using state = performer.initialState({ batch: 2 });
			const { bytes } = state;
			for (const piece of pieces([...tokens[0]!.keys()], most, 9)) {
				const [from, to] = [piece[0]!, piece.at(-1)! + 1];
				const found = await logitsOf(performer, cut(tokens, from, to), state);
				for (const b of [0, 1]) {
					const [n, at] = [(to - from) * V, (b * 90 + from) * V];
					expect(worst(found.subarray(b * n, (b + 1) * n), whole.subarray(at, at + n))).toBeLessThanOrEqual(1e-4);
				}
			}
			expect(state.length).toBe(90);
			expect(state.bytes).toBe(bytes);
			expect(bytes).toBe(sizes.layers * 2 * sizes.kvHeads * 4 * (1 + 20 * (1 + sizes.headDim)));
		}
	});

	test('only the last logits, a snapshot, and a copy that goes its own way', async () => {
		using model = await makeModel();
		using performer = await model.performerize({ features: 20 });
		using state = performer.initialState({ batch: 2 });
		const all = await logitsOf(performer, cut(tokens, 0, 50), state.clone());
		const last = await logitsOf(performer, cut(tokens, 0, 50), state, { last: true });
		expect(worst(last.subarray(0, V), all.subarray(49 * V, 50 * V))).toBeLessThanOrEqual(1e-5);
		expect(worst(last.subarray(V), all.subarray(99 * V))).toBeLessThanOrEqual(1e-5);
		using back = State.restore(await state.snapshot());
		using copy = state.clone();
		const next = cut(tokens, 50, 90);
		const right = await logitsOf(performer, next, state);
		expect(await logitsOf(performer, next, back)).toEqual(right);
		expect(await logitsOf(performer, next, copy)).toEqual(right);
	});

	test('a stream goes on by itself as the likeliest tokens say, and takes no more memory', async () => {
		using model = await makeModel();
		using performer = await model.performerize({ features: 20 });
		using stream = performer.stream();
		const prompt = tokens[0]!.subarray(0, 30);
		const found: number[] = [];
		const options = { temperature: 0, maxTokens: 40, ignoreEos: true };
		let flat = 0;
		for await (const { token } of stream.generate(model.tokenizer, prompt, options)) {
			found.push(token);
			if (found.length === 1) flat = await held();
		}
		expect(await held()).toBe(flat);
		expect(stream.position).toBe(30 + 39); // the last one handed out has not been fed
		const right: number[] = [];
		while (right.length < 40) {
			const logits = (await logitsOf(performer, [...prompt, ...right])).slice(-V);
			right.push(logits.indexOf(Math.max(...logits)));
		}
		expect(found).toEqual(right);
		const before = await stream.next([]);
		await expect(stream.next([V])).rejects.toThrow(ArgumentError);
		expect(await stream.next([])).toEqual(before);
		stream.dispose();
		await expect(stream.next([1])).rejects.toThrow(DisposedError);
	});

	test('a stream that is aborted says how far it came', async () => {
		using model = await makeModel();
		using performer = await model.performerize({ features: 8 });
		using stream = performer.stream();
		const long = randomTokens(2000, 3);
		const abort = new AbortController();
		const fed = stream.next(long, { signal: abort.signal });
		abort.abort(new Error('enough'));
		await expect(fed).rejects.toThrow('enough');
		expect(stream.position).toBeGreaterThan(0);
		expect(stream.position).toBeLessThan(2000);
		using whole = performer.stream();
		const right = await whole.next(long);
		expect(worst(await stream.next(long.subarray(stream.position)), right)).toBeLessThanOrEqual(1e-4);
	});
});
