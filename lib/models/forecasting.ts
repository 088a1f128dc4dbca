import { createHash } from 'node:crypto';
import type { DeviceName } from '../device.js';
import { ArgumentError, FormatError } from '../errors.js';
import type { Table } from '../io/csv.js';
import type { MixerName } from '../layers/block.js';
import type { Checkpoint } from '../train/checkpoint.js';
import { fit, type Progress } from '../train/fit.js';
import { Best } from './best.js';
import { Forecaster } from './forecaster.js';
import { type Score, score } from './score.js';
import { calendarOf, type Parts, partsOf, type Scale, Series, type Split, scaleOf, timesOf, Windows } from './series.js';

export interface ForecastingOptions {
	/** Rows that the model is given when it is tested, L. */
	readonly length: number;
	/** Rows that it predicts, H. */
	readonly horizon: number;
	/** @default 'ratio' */
	readonly split?: Split | undefined;
	/** @default 'aaren' */
	readonly mixer?: MixerName | undefined;
	/** Values a token. @default 48, at most length / 2 */
	readonly lags?: number | undefined;
	/** @default 64 */
	readonly dim?: number | undefined;
	/** @default 4 */
	readonly heads?: number | undefined;
	/** @default 2 */
	readonly layers?: number | undefined;
	/** @default 0.2 */
	readonly dropout?: number | undefined;
	/** @default 4 */
	readonly epochs?: number | undefined;
	/** Sequences a step. @default 16 */
	readonly batch?: number | undefined;
	/** Learning rate that the cosine starts from. @default 3e-3 */
	readonly rate?: number | undefined;
	/** Of the first weights, the order of windows and dropout. @default 0 */
	readonly seed?: number | undefined;
	/** @default 'cpu' */
	readonly device?: DeviceName | undefined;
	readonly signal?: AbortSignal | undefined;
	/** Where to keep the training and go on from: with the same options, data and number of threads, to the same bits. @default nowhere */
	readonly checkpoint?: Omit<Checkpoint, 'settings' | 'keeper'> | undefined;
}

/** A table, its division and what was learnt of its scale. */
export interface Prepared {
	readonly table: Table;
	readonly series: Series;
	readonly parts: Parts;
	readonly scale: Scale;
}

/** A report of the training; at an epoch's end with the error on the validation part. */
export interface ForecastingProgress extends Progress {
	readonly validation?: Score;
}

export interface Trained extends Prepared {
	/** As it was after the epoch that predicted the validation part best. */
	readonly model: Forecaster;
	/** From 1. */
	readonly bestEpoch: number;
	readonly validation: Score;
	readonly seconds: number;
}

/** Validation takes about so many windows, evenly spread: enough to choose an epoch by. */
const validationWindows = 250;

/** Windows of one part, each with `length` rows before what it predicts: those may lie in the part before. */
export function windowsOf(
	series: Series,
	[start, end]: readonly [number, number],
	length: number,
	horizon: number,
	options: { stride?: number; device?: DeviceName | undefined } = {},
): Windows {
	return new Windows(series, {
		length,
		horizon,
		start: Math.max(0, start - length),
		end,
		stride: options.stride ?? 1,
		device: options.device ?? 'cpu',
	});
}

/**
 * Train a forecaster on the first part of a table. It sees windows of twice `length` (or what there is), so that it has
 * learnt to go on when a stream is longer than a window, and keeps the weights of the epoch that does best on the validation
 * part.
 * @returns (when done) the model; the caller disposes of it
 * @throws FormatError if the table is too short
 */
export async function* trainForecaster(table: Table, options: ForecastingOptions): AsyncGenerator<ForecastingProgress, Trained> {
	const {
		length,
		horizon,
		split = 'ratio',
		mixer = 'aaren',
		epochs = 4,
		batch = 16,
		rate = 3e-3,
		seed = 0,
		device = 'cpu',
		signal,
	} = options;
	for (const [name, value] of Object.entries({ length, horizon })) {
		const least = name === 'length' ? 4 : 1;
		if (!Number.isInteger(value) || value < least)
			throw new ArgumentError(`forecast: ${name} is ${value}, expected an integer from ${least}`);
	}
	const parts = partsOf(table, split);
	checkRows(table, parts, length, horizon);
	const [trainStart, trainEnd] = parts.train;
	const scale = scaleOf(table, parts.train);
	const times = timesOf(table);
	const calendar = times ? calendarOf(times.slice(trainStart, trainEnd)) : [];
	const series = new Series(table, scale, calendar);

	const window = Math.min(2 * length, trainEnd - horizon);
	// An odd stride, so that windows start at every hour of the day.
	const train = new Windows(series, {
		length: window,
		horizon,
		start: trainStart,
		end: trainEnd,
		stride: Math.floor(window / 5) | 1,
		device,
	});
	const every = Math.max(1, Math.floor((parts.validation[1] - parts.validation[0] - horizon) / validationWindows));
	const held = windowsOf(series, parts.validation, length, horizon, { stride: every, device });

	const { lags = Math.max(2, Math.min(48, Math.floor(length / 2))), dim = 64, heads = 4, layers = 2, dropout = 0.2 } = options;
	const config = { horizon, lags, mixer, dim, heads, layers, dropout, calendar, columns: table.names, scale, context: length, split };
	const model = new Forecaster(config, { seed, device });
	const best = new Best(model);
	try {
		const warmup = Math.ceil((epochs * train.length) / batch / 20);
		const sizes = { length, horizon, mixer, lags, dim, heads, layers, dropout };
		const settings = { columns: table.names, split, ...sizes, epochs, rate, device: model.device, 'digest of the data': digestOf(table) };
		const checkpoint = options.checkpoint && { ...options.checkpoint, settings, keeper: best };
		const schedule = 'cosine';
		for await (const progress of fit(model, train, { epochs, batch, rate, schedule, warmup, clip: 1, seed, signal, checkpoint })) {
			if (!progress.epochEnd) {
				yield progress;
				continue;
			}
			// Without the signal: it is short, and `fit` can write the checkpoint only of an epoch that is reported whole.
			const validation = await score(model, held);
			await best.offer(progress.epoch, validation);
			yield { ...progress, validation };
		}
		const { epoch: bestEpoch, validation, seconds } = best;
		if (!validation) throw new Error('forecast: the error on the validation part is finite after no epoch, expected it to be after one');
		best.apply();
		return { model, table, series, parts, scale, bestEpoch, validation, seconds };
	} catch (error) {
		model.dispose();
		throw error;
	}
}

/** Of the numbers and dates that a model can see. */
function digestOf({ columns, dates }: Table): string {
	const hash = createHash('sha256').update(JSON.stringify(dates));
	for (const column of columns) hash.update(column);
	return hash.digest('hex').slice(0, 16);
}

function checkRows({ path, rows }: Table, { train, validation, test }: Parts, length: number, horizon: number): void {
	const sizes = [train, validation, test].map(([start, end]) => end - start);
	const enough = sizes[0]! >= length + horizon && sizes[1]! >= horizon && sizes[2]! >= horizon;
	if (enough) return;
	throw new FormatError(
		path,
		`the series is too short: ${rows} rows give ${sizes.join(', ')} to train, validate and test, expected at least ${length + horizon}, ${horizon}, ${horizon} for length ${length} and horizon ${horizon}`,
		{ line: rows + 1 },
	);
}
