import { describe, expect, test } from 'vitest';
import { ArgumentError, DisposedError, FormatError } from '../../lib/errors.js';
import type { PerformerizeOptions } from '../../lib/models/performerize.js';
import { PerformerDecoder } from '../../lib/models/performerize_decoder.js';
import type { Tokens } from '../../lib/models/tokens.js';
import { loadModel, saveModel } from '../../lib/train/save.js';
import { altered, temporary } from '../files.js';
import { held, logitsOf, makeModel, randomTokens, weightsOf } from './performerize_models.js';

describe('files', () => {
	test('a saved model comes back to the bit, with the Ω that it had', async () => {
		using model = await makeModel({ biases: ['q', 'k', 'v'], config: { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2' } });
		using performer = await model.performerize({ features: 20, seed: 4, redrawEvery: 3 });
		performer.redraw();
		performer.setTraining(true);
		performer.setTraining(false);
		const folder = await temporary();
		await saveModel(performer, folder);
		using loaded = (await loadModel(folder)) as PerformerDecoder;
		expect(loaded).toBeInstanceOf(PerformerDecoder);
		expect(loaded.config).toEqual(performer.config);
		expect([...loaded.wholes()].map(([name, { value }]) => [name, value])).toEqual([
			['draw', 1],
			['drawAge', 1],
		]);
		const tokens = randomTokens(40, 9);
		expect(await logitsOf(loaded, tokens)).toEqual(await logitsOf(performer, tokens));
		expect(await weightsOf(loaded)).toEqual(await weightsOf(performer));
	});

	test.each([
		['heads', 0, 'heads is 0'],
		['features', 'many', 'features is "many"'],
		['featureKind', 'best', 'kind is best'],
		['rope', { pairs: 'halves', frequencies: [1], magnitude: 1 }, 'rope.frequencies is [1]'],
		['rope', null, 'rope.pairs is nothing'],
		['attention', 'none', 'attention is "none"'],
		['slidingWindow', [], 'slidingWindow is []'],
		['layers', 1e9, 'layers is 1000000000'],
	])('a config whose %s is %j', async (name, value, message) => {
		using model = await makeModel();
		using performer = await model.performerize({ features: 8 });
		const folder = await temporary();
		await saveModel(performer, folder);
		await altered(`${folder}/model.safetensors`, (_, metadata) => {
			metadata['oplus.config'] = JSON.stringify({ kind: performer.kind, ...performer.config, [name]: value });
		});
		const loading = loadModel(folder);
		await expect(loading).rejects.toThrow(FormatError);
		await expect(loading).rejects.toThrow(message);
	});
});

test('what makes no sense is refused, and the model goes on', async () => {
	using model = await makeModel();
	const before = await held();
	const wrong: [PerformerizeOptions, string][] = [
		[{ features: 0 }, 'features is 0'],
		[{ features: 3, kind: 'hyperbolic' }, 'features is 3, expected a positive even integer'],
		[{ kind: 'best' as 'relu' }, 'kind is best'],
		[{ seed: -1 }, 'seed is -1'],
		[{ redrawEvery: 1.5 }, 'redrawEvery is 1.5'],
		[{ trainable: 'none' as 'all' }, 'trainable is "none"'],
		[{ attention: 'exact' as 'favor' }, 'attention is "exact"'],
	];
	for (const [options, message] of wrong) await expect(model.performerize(options)).rejects.toThrow(message);
	await expect(model.performerize(null as never)).rejects.toThrow(ArgumentError);
	expect(await held()).toBe(before);
	using performer = await model.performerize({ features: 8 });
	using other = await model.performerize({ features: 8, seed: 1 });
	using exact = await model.performerize({ attention: 'softmax' });
	const lists: [Tokens, string][] = [
		[[], 'found no tokens'],
		[[300], 'token 0 of sequence 0 is 300, expected an integer from 0 to 299'],
		[[0.5], 'token 0 of sequence 0 is 0.5'],
		[[1, -1], 'token 1 of sequence 0 is -1'],
		[[[1, 2], [3]], 'sequence 1 has 1 tokens, expected 2'],
	];
	for (const [tokens, message] of lists) expect(() => performer.forward(tokens)).toThrow(message);
	expect(() => exact.initialState()).toThrow('exact attention has no state of a fixed size');
	expect(() => performer.initialState({ batch: 0 })).toThrow('batch is 0');
	using state = performer.initialState();
	expect(() => performer.forward([[1], [2]], state)).toThrow('the state is of 1 sequences, expected 2');
	expect(() => other.forward([1], state)).toThrow('the state is of draw 0 of seed 0, expected draw 0 of seed 1');
	performer.redraw();
	expect(() => performer.forward([1], state)).toThrow('the state is of draw 0 of seed 0, expected draw 1 of seed 0');
	using now = performer.initialState();
	performer.setTraining(true);
	expect(() => performer.forward([1], now)).toThrow('a state in training');
	performer.setTraining(false);
	expect((await logitsOf(performer, [1], now)).every(Number.isFinite)).toBe(true);
	other.dispose();
	expect(() => other.forward([1])).toThrow(DisposedError);
	expect(() => other.forward([1])).toThrow('PerformerDecoder has been disposed of');
	model.dispose();
	await expect(model.performerize()).rejects.toThrow(DisposedError);
});
