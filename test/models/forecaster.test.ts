import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { memory } from '../../lib/device.js';
import { FormatError } from '../../lib/errors.js';
import { readTable, type Table } from '../../lib/io/csv.js';
import { State } from '../../lib/layers/state.js';
import { ForecastStream } from '../../lib/models/forecast_stream.js';
import { Forecaster, type ForecasterConfig } from '../../lib/models/forecaster.js';
import { type ForecastingOptions, type Trained, trainForecaster, windowsOf } from '../../lib/models/forecasting.js';
import { replay } from '../../lib/models/replay.js';
import { score } from '../../lib/models/score.js';
import { Series, Windows } from '../../lib/models/series.js';
import { Random } from '../../lib/random.js';
import { type Tensor, tensor } from '../../lib/tensor.js';
import { loadModel, saveModel } from '../../lib/train/save.js';
import { file, hourly, temporary } from '../files.js';

const mixers = ['aaren', 'performer', 'attention'] as const;
const config = {
	horizon: 3,
	lags: 5,
	dim: 16,
	heads: 2,
	layers: 2,
	dropout: 0.2,
	calendar: ['hour', 'week'],
	columns: ['a', 'b'],
	scale: { mean: [1, -2], std: [2, 0.5] },
	context: 12,
} satisfies ForecasterConfig;

function rows(B: number, T: number, width: number, seed = 1): Float32Array {
	const random = new Random(seed);
	return Float32Array.from({ length: B * T * width }, () => random.normal());
}

/** Rows [start, end) of `[B, T, width]`. */
function cut(x: Float32Array, [B, T, width]: readonly [number, number, number], start: number, end: number): Tensor {
	const parts = Array.from({ length: B }, (_, b) => [...x.subarray((b * T + start) * width, (b * T + end) * width)]);
	return tensor(parts.flat(), [B, end - start, width]);
}

describe.each(mixers)('Forecaster, %s', (mixer) => {
	const model = new Forecaster({ ...config, mixer }, { seed: 3 });
	const [B, T] = [2, 40];
	const shape = [B, T, model.width] as const;
	const x = rows(...shape);

	test('row by row and in pieces of any length: as all at once', async () => {
		const whole = await model.forward(tensor(x, shape)).read();
		const random = new Random(5);
		for (const lengthOf of [() => 1, () => 1 + random.integer(9)]) {
			using state = model.initialState();
			for (let t = 0; t < T; ) {
				const end = Math.min(T, t + lengthOf());
				const piece = await model.forward(cut(x, shape, t, end), state).read();
				for (let b = 0; b < B; b++) {
					for (let i = 0; i < (end - t) * 3; i++) expect(piece[b * (end - t) * 3 + i]).toBeCloseTo(whole[(b * T + t) * 3 + i]!, 4);
				}
				t = end;
			}
			expect(state.length).toBe(T);
		}
	});

	test('no prediction knows what comes later', async () => {
		const whole = await model.forward(tensor(x, shape)).read();
		const changed = Float32Array.from(x, (value, i) => (Math.floor(i / model.width) % T >= 25 ? value + 100 : value));
		const other = await model.forward(tensor(changed, shape)).read();
		for (let t = 0; t < T; t++) {
			const same = [...whole.subarray(t * 3, t * 3 + 3)].every((value, h) => value === other[t * 3 + h]);
			expect(same).toBe(t < 25);
		}
	});

	test('a series shifted and stretched is predicted alike, shifted and stretched', async () => {
		const plain = new Forecaster({ ...config, calendar: [], mixer }, { seed: 3 });
		const values = rows(1, T, 1).map((value) => 10 * value);
		const before = await plain.forward(tensor(values, [1, T, 1])).read();
		const after = await plain
			.forward(
				tensor(
					values.map((value) => 3 * value + 50),
					[1, T, 1],
				),
			)
			.read();
		for (let i = 15; i < before.length; i++) expect(after[i]! / (3 * before[i]! + 50)).toBeCloseTo(1, 2);
	});

	test('only the last token, when only that is wanted', async () => {
		const whole = await model.forward(tensor(x, shape)).read();
		const last = await model.forward(tensor(x, shape), undefined, { last: true }).read();
		expect(last).toHaveLength(B * 3);
		for (let b = 0; b < B; b++) for (let h = 0; h < 3; h++) expect(last[b * 3 + h]).toBeCloseTo(whole[(b * T + T - 1) * 3 + h]!, 5);
	});

	test('saved and loaded, it predicts the same bits; so does a restored stream', async () => {
		const folder = path.join(await temporary(), 'model');
		await saveModel(model, folder);
		const loaded = await loadModel(folder);
		expect(loaded).toBeInstanceOf(Forecaster);
		const again = loaded as Forecaster;
		expect(again.config).toEqual(model.config);
		expect(await again.forward(tensor(x, shape)).read()).toEqual(await model.forward(tensor(x, shape)).read());

		using stream = new ForecastStream(model);
		for (let t = 0; t < 20; t++) await stream.push([t, -t], '2020-01-01 00:00:00');
		using restored = new ForecastStream(again, State.restore(await stream.state.snapshot()));
		const next = ['2020-01-01 01:00:00', [3, 4]] as const;
		expect(await restored.push(next[1], next[0])).toEqual(await stream.push(next[1], next[0]));
	});
});

test('the state of a stream has one size with Aaren and Performer, and grows with attention', async () => {
	for (const mixer of mixers) {
		using model = new Forecaster({ ...config, calendar: [], mixer });
		using stream = new ForecastStream(model);
		await stream.push([0, 0]);
		const first = stream.bytes;
		for (let t = 0; t < 200; t++) await stream.push([t, 1]);
		if (mixer !== 'attention') expect(stream.bytes).toBe(first);
		else expect(stream.bytes).toBeGreaterThan(2 * first);
	}
});

test('ten thousand rows later no memory is held that was not held before', async () => {
	using model = new Forecaster({ ...config, calendar: [], layers: 1 });
	using stream = new ForecastStream(model);
	for (let t = 0; t < 100; t++) await stream.push([t, 1]);
	const { bytes, buffers } = memory();
	for (let t = 0; t < 10_000; t++) await stream.push([t % 7, 1]);
	expect(memory()).toMatchObject({ bytes, buffers });
});

test('a row that is no row is refused and leaves the stream as it was', async () => {
	using model = new Forecaster(config);
	using stream = new ForecastStream(model);
	const date = '2020-01-01';
	await expect(stream.push([1], date)).rejects.toThrow('the row has 1 numbers, expected 2');
	await expect(stream.push([1, Number.NaN], date)).rejects.toThrow('`b` is NaN');
	await expect(stream.push([1, 2])).rejects.toThrow('the date is undefined');
	expect(stream.state.length).toBe(0);
});

test('a saved model that was tampered with is refused', async () => {
	const folder = await temporary();
	using model = new Forecaster(config);
	await saveModel(model, folder);
	const weights = path.join(folder, 'model.safetensors');
	const whole = await fs.readFile(weights);
	await fs.writeFile(weights, whole.subarray(0, whole.length - 7));
	await expect(loadModel(folder)).rejects.toThrow(FormatError);
	await fs.writeFile(weights, Buffer.from(whole.toString('latin1').replace('\\"lags\\": 5', '\\"lags\\": 6'), 'latin1'));
	await expect(loadModel(folder)).rejects.toThrow(/embed.weight` has shape/);
	await fs.writeFile(weights, Buffer.from(whole.toString('latin1').replace('forecaster', 'forecastor'), 'latin1'));
	await expect(loadModel(folder)).rejects.toThrow('`kind` is "forecastor"');
});

async function trained(table: Table, options: Partial<ForecastingOptions> = {}): Promise<Trained> {
	const training = trainForecaster(table, { length: 48, horizon: 12, dim: 16, heads: 2, layers: 1, epochs: 6, ...options });
	let step = await training.next();
	while (!step.done) step = await training.next();
	return step.value;
}

test('trained on a daily cycle it beats repeating the last value by far, streamed as in parallel', async () => {
	const table = await readTable(await file('hourly.csv', hourly(1500)));
	const { model, series, parts } = await trained(table);
	using _ = model;
	const test = await score(model, windowsOf(series, parts.test, 48, 12));
	expect(test.repeatMse).toBeGreaterThan(0.5);
	expect(test.mse).toBeLessThan(test.repeatMse / 4);
	const streamed = await replay(model, { table, series }, parts.test);
	expect(streamed.steps).toBe(348);
	expect(streamed.maxDifference).toBeLessThan(1e-4);
	expect(streamed.stateBytes).toBe(streamed.stateBytesAtStart);
	expect(streamed.repeatMse).toBeCloseTo(test.repeatMse, 6); // the same rows are counted
	expect(streamed.mse).toBeLessThan(test.repeatMse / 4);
});

test('the weights that are kept are those of the best epoch', async () => {
	const table = await readTable(await file('little.csv', hourly(400, 9)));
	const { model, series, parts, bestEpoch, validation } = await trained(table, { epochs: 25, rate: 2e-2, dim: 32, dropout: 0 });
	using _ = model;
	expect(bestEpoch).toBeLessThan(25); // so little data is soon learnt by heart
	const again = await score(model, windowsOf(series, parts.validation, 48, 12));
	expect(again.mse).toBe(validation.mse);
});

test('scores are those of plain loops over the windows', async () => {
	const table = await readTable(await file('hourly.csv', hourly(80)));
	using model = new Forecaster({ ...config, calendar: [] });
	const series = new Series(table, config.scale, []);
	const windows = new Windows(series, { length: 12, horizon: 3, start: 20, end: 60, stride: 4 });
	let [squares, absolutes, repeated, n] = [0, 0, 0, 0];
	for (let start = 20; start + 15 <= 60; start += 4) {
		for (const channel of series.channels) {
			const predicted = await model.forward(tensor(channel.subarray(start, start + 12), [1, 12, 1])).read();
			for (let h = 0; h < 3; h++) {
				const error = predicted[11 * 3 + h]! - channel[start + 12 + h]!;
				squares += error ** 2;
				absolutes += Math.abs(error);
				repeated += (channel[start + 11]! - channel[start + 12 + h]!) ** 2;
				n++;
			}
		}
	}
	const found = await score(model, windows, { batch: 5 });
	expect(found).toEqual({
		mse: expect.closeTo(squares / n, 4),
		mae: expect.closeTo(absolutes / n, 4),
		repeatMse: expect.closeTo(repeated / n, 8),
		windows: 7,
	});
});

test('a series that is too short: one error with the file and what it needs', async () => {
	const table = await readTable(await file('short.csv', hourly(60)));
	const error = await trained(table).catch((reason: unknown) => reason as FormatError);
	expect(error).toBeInstanceOf(FormatError);
	expect(error).toMatchObject({ path: table.path, line: 61 });
	expect((error as FormatError).message).toContain('60 rows give 42, 6, 12 to train, validate and test');
});
