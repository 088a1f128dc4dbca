import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { FormatError } from '../../lib/errors.js';
import { readTable, type Table } from '../../lib/io/csv.js';
import { Best } from '../../lib/models/best.js';
import { Forecaster } from '../../lib/models/forecaster.js';
import { type ForecastingOptions, type Trained, trainForecaster } from '../../lib/models/forecasting.js';
import { tensor } from '../../lib/tensor.js';
import { altered, file, hourly, temporary } from '../files.js';

const sizes = { horizon: 12, dim: 16, heads: 2, layers: 1 };

async function trained(table: Table, options: Partial<ForecastingOptions>): Promise<Trained> {
	const training = trainForecaster(table, { length: 48, ...sizes, ...options });
	let step = await training.next();
	while (!step.done) step = await training.next();
	return step.value;
}

test('an epoch whose error is no number is never the best, not even the first, nor after a checkpoint', async () => {
	using model = new Forecaster({ ...sizes, lags: 5, calendar: [], columns: ['a'], scale: { mean: [0], std: [1] }, context: 48 });
	const scored = (mse: number) => ({ mse, mae: mse, repeatMse: 1, windows: 1 });
	let best = new Best(model);
	for (const [epoch, mse, expected] of [
		[1, Number.NaN, 0],
		[2, Number.POSITIVE_INFINITY, 0],
		[3, 2, 3],
		[4, Number.NaN, 3],
		[5, 1, 5],
	] as const) {
		await best.offer(epoch, scored(mse));
		const { note, numbers } = best.save();
		best = new Best(model);
		best.restore({ note: JSON.parse(JSON.stringify(note)), numbers }, 'check.safetensors');
		expect(best.epoch).toBe(expected);
	}
	expect(best.validation).toEqual(scored(1));
});

test('the best weights come back with the draw that they were judged by', async () => {
	const config = { ...sizes, lags: 5, calendar: [], columns: ['a'], scale: { mean: [0], std: [1] }, context: 48 };
	using model = new Forecaster({ ...config, mixer: 'performer' });
	const x = tensor(
		Float32Array.from({ length: 20 }, (_, i) => Math.sin(i)),
		[1, 20, 1],
	);
	const predicted = () => noGrad(() => model.forward(x)).read();
	const best = new Best(model);
	for (let step = 0; step < 1001; step++) model.setTraining(true, step);
	model.setTraining(false);
	const judged = await predicted();
	await best.offer(1, { mse: 1, mae: 1, repeatMse: 1, windows: 1 });
	const { note, numbers } = best.save();
	for (let step = 0; step < 1000; step++) model.setTraining(true, step);
	model.setTraining(false);
	expect(await predicted()).not.toEqual(judged); // Ω was drawn anew
	best.apply();
	expect(await predicted()).toEqual(judged);

	using other = new Forecaster({ ...config, mixer: 'performer' }, { seed: 4 });
	const restored = new Best(other);
	restored.restore({ note: JSON.parse(JSON.stringify(note)), numbers }, 'check.safetensors');
	restored.apply();
	expect(await noGrad(() => other.forward(x)).read()).toEqual(judged);
	const without = { ...(note as object), wholes: {} };
	expect(() => restored.restore({ note: without, numbers }, 'check.safetensors')).toThrow('`stack.0.mixer.seed` is nothing');
});

describe('a checkpoint', () => {
	const weights = async ({ model }: Trained) => Promise.all([...model.parameters().values()].map((parameter) => parameter.read()));

	test('is written when Ctrl-C comes while an epoch is validated', async () => {
		const table = await readTable(await file('hourly.csv', hourly(1500)));
		const whole = await trained(table, { epochs: 2 });
		const controller = new AbortController();
		const resumed: number[][] = [];
		const onResume = (...place: number[]) => resumed.push(place);
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 1000, onResume };
		const forward = Forecaster.prototype.forward;
		const spy = vi.spyOn(Forecaster.prototype, 'forward').mockImplementation(function (this: Forecaster, ...args) {
			if (args[2]?.last) controller.abort('enough'); // only validation wants the last token alone
			return forward.apply(this, args);
		});
		await expect(trained(table, { epochs: 2, checkpoint, signal: controller.signal }))
			.rejects.toBe('enough')
			.finally(() => spy.mockRestore());
		const again = await trained(table, { epochs: 2, checkpoint });
		expect(resumed).toEqual([[expect.any(Number), 2 * resumed[0]![0]!]]);
		expect(await weights(again)).toEqual(await weights(whole));
		expect([again.bestEpoch, again.validation]).toEqual([whole.bestEpoch, whole.validation]);
		for (const { model } of [whole, again]) model.dispose();
	});

	test('that lacks the best weights, or what is said of them, is refused', async () => {
		const table = await readTable(await file('hourly.csv', hourly(800)));
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 1000 };
		const run = () => trained(table, { epochs: 1, checkpoint });
		const refused = async (expected: string) => {
			const error = await run().catch((reason: unknown) => reason as FormatError);
			expect(error).toBeInstanceOf(FormatError);
			expect((error as FormatError).message).toContain(`${checkpoint.path}: ${expected}`);
		};
		(await run()).model.dispose();
		const header = (change: object) =>
			altered(checkpoint.path, (_, metadata) => {
				const { note, ...rest } = JSON.parse(metadata['oplus.checkpoint']!);
				metadata['oplus.checkpoint'] = JSON.stringify({ ...rest, note: { ...note, ...change } });
			});
		const intact = await fs.readFile(checkpoint.path);
		await altered(checkpoint.path, (tensors) => tensors.delete('k.embed.weight'));
		await refused('`k.embed.weight` has no numbers, expected ');
		for (const [change, expected] of [
			[{ validation: { mse: null } }, '`validation` is {"mse":null}, expected null or errors with a finite `mse`'],
			[{ validation: undefined }, '`validation` is nothing, expected'],
			[{ epoch: '1' }, '`epoch` is "1", expected an integer'],
			[{ seconds: null }, '`seconds` is null, expected a number'],
		] as const) {
			await fs.writeFile(checkpoint.path, intact);
			await header(change);
			await refused(`the checkpoint's ${expected}`);
		}
	});
});
