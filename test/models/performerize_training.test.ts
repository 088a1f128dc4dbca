import path from 'node:path';
import { expect, test } from 'vitest';
import { synchronize } from '../../lib/device.js';
import { ArgumentError } from '../../lib/errors.js';
import { PerformerDecoder } from '../../lib/models/performerize_decoder.js';
import { TokenTexts } from '../../lib/models/tokens.js';
import { Random } from '../../lib/random.js';
import { scope } from '../../lib/tensor.js';
import { type FitOptions, fit } from '../../lib/train/fit.js';
import { temporary } from '../files.js';
import { held, logitsOf, makeModel, randomTokens, sizes, weightsOf } from './performerize_models.js';

/** Texts of a language with little choice: each token's neighbours are few. */
const texts = (() => {
	const random = new Random(1);
	return Array.from({ length: 24 }, (_, i) => {
		const text = [1];
		while (text.length < 12 + (i % 5) * 6) text.push((text.at(-1)! * 7 + random.integer(2)) % 40);
		return text;
	});
})();
const data = new TokenTexts(texts, { length: 24 });
const options = { epochs: 2, batch: 8, rate: 3e-3, clip: 1, seed: 5 } satisfies FitOptions;

async function trained(model: PerformerDecoder, more: Partial<FitOptions> = {}): Promise<number[]> {
	const losses: number[] = [];
	for await (const { loss } of fit(model, data, { ...options, every: 1, ...more })) losses.push(loss);
	return losses;
}

/** The gradients that a batch brings, by name. */
async function gradients(model: PerformerDecoder, batch = data.batch([0, 1, 2])): Promise<Map<string, Float32Array>> {
	scope(() => model.loss(batch).backward());
	const all = new Map<string, Float32Array>();
	for (const [name, parameter] of model.parameters()) {
		if (parameter.grad) all.set(name, await parameter.grad.read());
		parameter.grad?.dispose();
		parameter.grad = null;
	}
	return all;
}

const lossOf = async (model: PerformerDecoder, batch = data.batch([0, 1, 2])) =>
	(await scope(() => ({ read: model.loss(batch).read() })).read)[0]!;

test('texts become rows of one length: what follows each token, and nothing behind the end', () => {
	const some = new TokenTexts(
		[
			[1, 5, 6],
			[1, 7, 8, 9, 10, 11, 12],
			[1, 2],
		],
		{ length: 4 },
	);
	expect(some.length).toBe(3);
	const { x, y } = some.batch([0, 1]);
	expect([...(x as Int32Array[])].map((row) => [...row])).toEqual([
		[1, 5, 0, 0],
		[1, 7, 8, 9],
	]);
	expect([...(y as Int32Array[])].map((row) => [...row])).toEqual([
		[5, 6, -1, -1],
		[7, 8, 9, 10],
	]);
	expect((some.batch([0, 2]).x as Int32Array[]).map((row) => row.length)).toEqual([2, 2]);
	expect(() => new TokenTexts([[1]], { length: 4 })).toThrow('text 0 has 1 tokens');
	expect(() => new TokenTexts([[1, 2]], { length: 0 })).toThrow('length is 0');
});

test('the loss is the mean over the targets that count', async () => {
	using model = await makeModel();
	using performer = await model.performerize({ features: 16 });
	const batch = {
		x: [randomTokens(6, 1), randomTokens(6, 2)],
		y: [Int32Array.of(3, -1, 4, -1, -1, 5), Int32Array.of(-1, 7, -1, -1, -1, -1)],
	};
	const logits = await logitsOf(performer, batch.x);
	const V = sizes.vocabulary;
	const terms = batch.y.flatMap((row, b) =>
		[...row].flatMap((target, t) => {
			const at = (b * 6 + t) * V;
			const sum = logits.subarray(at, at + V).reduce((total, x) => total + Math.exp(x), 0);
			return target < 0 ? [] : [Math.log(sum) - logits[at + target]!];
		}),
	);
	expect(terms).toHaveLength(4);
	expect(await lossOf(performer, batch)).toBeCloseTo(terms.reduce((sum, term) => sum + term, 0) / 4, 4);
	expect(() => performer.loss({ x: [1, 2], y: [-1, -1] })).toThrow('all targets are -1');
	expect(() => performer.loss({ x: [1, 2], y: [3] })).toThrow(ArgumentError);
	expect(() => performer.loss({ x: [1, 2], y: [3, -2] })).toThrow('is -2, expected an integer from -1');
});

test.each([
	['features of softmax', {}],
	['generalised features', { kind: 'elu' }],
	['exact attention', { attention: 'softmax' }],
] as const)('every parameter has the gradient that differences of the loss say, %s', async (_, how) => {
	using model = await makeModel({
		biases: ['q', 'k', 'v'],
		tied: false,
		config: { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' },
	});
	using performer = await model.performerize({ features: 16, ...how });
	const all = await gradients(performer);
	const parameters = performer.parameters();
	expect([...all.keys()]).toEqual([...parameters.keys()]);
	for (const [name, gradient] of all) {
		const parameter = parameters.get(name)!;
		const before = await parameter.read();
		const norm = Math.sqrt(gradient.reduce((sum, x) => sum + x * x, 0));
		expect(norm, name).toBeGreaterThan(1e-4);
		// Along the gradient the loss changes by its norm; in steps that its curve does not notice and f32 does.
		const size = 2e-2;
		const at = async (step: number) => {
			parameter.write(before.map((x, i) => x + (step * gradient[i]!) / norm));
			return lossOf(performer);
		};
		const slope = ((await at(size)) - (await at(-size))) / (2 * size);
		parameter.write(before);
		expect(Math.abs(slope / norm - 1), name).toBeLessThan(0.005);
	}
});

test('a tied embedding gets the gradients of both its uses', async () => {
	using model = await makeModel();
	using tied = await model.performerize({ features: 16 });
	const embedding = await tied.parameters().get('model.embed_tokens.weight')!.read();
	const all = await weightsOf(tied);
	const shapes = new Map([...tied.parameters()].map(([name, { shape }]) => [name, shape]));
	using apart = new PerformerDecoder({ ...tied.config, tied: false });
	for (const [name, parameter] of apart.parameters()) {
		parameter.write(name === 'lm_head.weight' ? embedding : Float32Array.from(all[name]!));
		if (name !== 'lm_head.weight') expect(parameter.shape).toEqual(shapes.get(name));
	}
	const both = (await gradients(tied)).get('model.embed_tokens.weight')!;
	const each = await gradients(apart);
	const [first, second] = [each.get('model.embed_tokens.weight')!, each.get('lm_head.weight')!];
	expect(Math.max(...first.map(Math.abs))).toBeGreaterThan(1e-3);
	expect(Math.max(...second.map(Math.abs))).toBeGreaterThan(1e-3);
	for (const [i, x] of both.entries()) expect(x).toBeCloseTo(first[i]! + second[i]!, 5);
	expect(tied.parameters().has('lm_head.weight')).toBe(false);
});

test('training attention alone leaves all else as it was, to the bit', async () => {
	using model = await makeModel({
		biases: ['q', 'k', 'v'],
		config: { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' },
	});
	using performer = await model.performerize({ features: 16, trainable: 'attention' });
	const before = await weightsOf(performer);
	const losses = await trained(performer);
	const after = await weightsOf(performer);
	for (const name of Object.keys(before)) {
		const moved = after[name]!.some((x, i) => x !== before[name]![i]);
		expect(moved, name).toBe(name.includes('self_attn'));
	}
	expect(losses.at(-1)).toBeLessThan(losses[0]!);
	using all = await model.performerize({ features: 16 });
	await trained(all);
	for (const [name, values] of Object.entries(await weightsOf(all))) expect(values, name).not.toEqual(before[name]);
});

test.each([{}, { kind: 'relu' }, { redrawEvery: 3 }, { attention: 'softmax' }] as const)('fit lowers the loss: %j', async (how) => {
	using model = await makeModel();
	using performer = await model.performerize({ features: 32, ...how });
	const losses = await trained(performer, { epochs: 20 });
	// Two tokens may follow each, so ln 2 is the least in the long run.
	expect(losses[0]).toBeGreaterThan(4);
	expect(losses.at(-1)).toBeLessThan(1.5);
});

test('Ω is drawn anew every so many steps of training, and at no other time', async () => {
	using model = await makeModel();
	using performer = await model.performerize({ features: 16, redrawEvery: 4 });
	const draws: number[] = [];
	for await (const _ of fit(performer, data, { ...options, epochs: 3, every: 1 })) {
		draws.push(performer.draw);
		await logitsOf(performer, [1, 2, 3]);
	}
	expect(draws).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 2]);
	using same = await model.performerize({ features: 16, redrawEvery: 0 });
	await trained(same);
	expect(same.draw).toBe(0);
	const one = await logitsOf(same, [1, 2, 3]);
	same.redraw();
	expect(await logitsOf(same, [1, 2, 3])).not.toEqual(one);
});

test('a training that was left goes on to the same bits, draws of Ω included', async () => {
	using model = await makeModel();
	const how = { features: 16, redrawEvery: 2 };
	using whole = await model.performerize(how);
	const settings = { ...options, epochs: 3 };
	await trained(whole, settings);
	const checkpoint = { path: path.join(await temporary(), 'checkpoint.safetensors'), every: 5 };
	using first = await model.performerize(how);
	for await (const { step } of fit(first, data, { ...settings, every: 1, checkpoint })) if (step === 6) break;
	using second = await model.performerize(how);
	await trained(second, { ...settings, checkpoint });
	expect(second.draw).toBe(whole.draw);
	expect(await weightsOf(second)).toEqual(await weightsOf(whole));
});

test('memory comes back', async () => {
	using model = await makeModel();
	const once = async () => {
		using performer = await model.performerize({ features: 16, redrawEvery: 2 });
		expect((await held()) - before).toBeGreaterThanOrEqual(performer.bytes);
		const own = await held();
		for (const keepsUp of [1, 2]) {
			await trained(performer, { epochs: keepsUp });
			expect((await held()) - own).toBeLessThanOrEqual(sizes.layers * 4 * 16 * sizes.headDim); // Ω, once it was drawn
		}
		using stream = performer.stream();
		await stream.next(randomTokens(40, 1));
	};
	let before = 0;
	await once(); // what the model keeps
	before = await held();
	await once();
	await synchronize();
	expect(await held()).toBe(before);
});
