import path from 'node:path';
import { describe, expect, test } from 'vitest';
import {
	evaluate,
	type FitOptions,
	FormatError,
	fit,
	loadModel,
	noGrad,
	Performer,
	type PerformerConfig,
	saveModel,
} from '../../lib/index.js';
import { altered, temporary } from '../files.js';
import { Letters } from './sequences.js';

const config = { vocabulary: 7, dim: 16, layers: 2, heads: 2, hidden: 24, features: 12, seed: 3 } satisfies PerformerConfig;

describe('features that are drawn anew', () => {
	const data = new Letters(48, 12);
	const options = { epochs: 4, batch: 8, rate: 3e-3, clip: 1, schedule: 'cosine', seed: 7 } satisfies FitOptions; // 24 steps
	const make = () => new Performer({ ...config, redrawEvery: 5, dropout: 0.1 });
	const draws = (model: Performer) => [...model.wholes()].flatMap(([name, { value }]) => (name.endsWith('draw') ? [value] : []));
	const bits = async (model: Performer) => {
		const parameters = [...model.parameters()].map(async ([name, parameter]) => [name, await parameter.read()] as const);
		return { ...Object.fromEntries(await Promise.all(parameters)), logits: await noGrad(() => model.forward(data.batch([0, 1]).x)).read() };
	};
	const train = async (model: Performer, more: Partial<FitOptions> = {}, stop = Infinity) => {
		const losses: number[] = [];
		for await (const { step, loss } of fit(model, data, { ...options, every: 1, ...more })) {
			losses.push(loss);
			if (step === stop) break;
		}
		return losses;
	};

	test('come every R steps of a training and not in evaluation', async () => {
		const model = make();
		const seen: number[] = [];
		for await (const { step } of fit(model, data, { ...options, every: 1 })) {
			await evaluate(model, data);
			seen.push(draws(model)[0]!);
			expect(step).toBe(seen.length);
		}
		expect(seen).toEqual(Array.from({ length: 24 }, (_, step) => Math.floor(step / 5)));
		expect(draws(model)).toEqual([4, 4]);
		await evaluate(model, data);
		expect(draws(model)).toEqual([4, 4]);
	});

	test('are those that a resumed training goes on with: the same bits as without a stop', async () => {
		const whole = make();
		const losses = await train(whole);
		const expected = await bits(whole);
		const other = new Performer({ ...config, redrawEvery: 0, dropout: 0.1 });
		expect((await train(other)).slice(5)).not.toEqual(losses.slice(5)); // draws matter
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 2 };
		for (const stop of [3, 12, 17]) await train(make(), { checkpoint }, stop);
		const resumed = make();
		expect(await train(resumed, { checkpoint })).toEqual(losses.slice(16));
		expect(draws(resumed)).toEqual([4, 4]);
		expect(await bits(resumed)).toEqual(expected);
	});

	test('are saved with the model: the same bits, and a training of it goes on counting', async () => {
		const model = make();
		await train(model);
		const folder = path.join(await temporary(), 'model');
		await saveModel(model, folder);
		const loaded = (await loadModel(folder)) as Performer;
		expect(await bits(loaded)).toEqual(await bits(model));
		expect(draws(loaded)).toEqual([4, 4]);
		await train(model);
		await train(loaded);
		expect(draws(loaded)).toEqual([9, 9]);
		expect(await bits(loaded)).toEqual(await bits(model));
	});

	test.each([
		['no draw', (wholes: Record<string, unknown>) => delete wholes['stack.0.mixer.draw'], '`stack.0.mixer.draw` is nothing'],
		['half a draw', (wholes: Record<string, unknown>) => (wholes['stack.1.mixer.draw'] = 0.5), '`stack.1.mixer.draw` is 0.5'],
		['a seed below 0', (wholes: Record<string, unknown>) => (wholes['stack.0.mixer.seed'] = -1), '`stack.0.mixer.seed` is -1'],
		[
			'a draw too far',
			(wholes: Record<string, unknown>) => (wholes['stack.0.mixer.draw'] = 2 ** 32),
			'expected an integer in [0, 4294967296)',
		],
	])('damaged (%s) they are refused', async (_, damage, expected) => {
		const folder = await temporary();
		using model = make();
		await saveModel(model, folder);
		const checkpoint = { path: path.join(folder, 'check.safetensors'), every: 100 };
		await train(make(), { checkpoint });
		const [file, change] = [path.join(folder, 'model.safetensors'), damage as (wholes: unknown) => unknown];
		await altered(file, (_, metadata) => {
			const wholes = JSON.parse(metadata['oplus.wholes']!);
			change(wholes);
			metadata['oplus.wholes'] = JSON.stringify(wholes);
		});
		await altered(checkpoint.path, (_, metadata) => {
			const header = JSON.parse(metadata['oplus.checkpoint']!);
			change(header.wholes);
			metadata['oplus.checkpoint'] = JSON.stringify(header);
		});
		const before = await bits(model);
		for (const attempt of [() => loadModel(folder), () => train(model, { checkpoint })]) {
			const error = await attempt().catch((reason: unknown) => reason);
			expect(error).toBeInstanceOf(FormatError);
			expect((error as FormatError).message).toContain(expected);
		}
		expect(await bits(model)).toEqual(before);
	});

	test('text that is no JSON in their place is refused', async () => {
		const folder = await temporary();
		using model = make();
		await saveModel(model, folder);
		await altered(path.join(folder, 'model.safetensors'), (_, metadata) => {
			metadata['oplus.wholes'] = '{';
		});
		await expect(loadModel(folder)).rejects.toThrow('`oplus.wholes` is no JSON');
	});
});
