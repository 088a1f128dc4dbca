import { noGrad } from '../autograd.js';
import { scope, Tensor } from '../tensor.js';
import { ForecastStream } from './forecast_stream.js';
import type { Forecaster } from './forecaster.js';
import type { Prepared } from './forecasting.js';

export interface ReplayOptions {
	readonly signal?: AbortSignal | undefined;
	/** Called after every row with the share that is done. */
	readonly onProgress?: (done: number) => void;
	/** Called with the predictions after each counted row, `channels · horizon` in the columns' units, and the row's number. */
	readonly onPrediction?: (row: number, predicted: Float32Array) => void;
}

export interface Replay {
	/** Rows fed. */
	readonly steps: number;
	/** On scaled values, over every row of the part whose whole horizon lies in it. */
	readonly mse: number;
	readonly mae: number;
	readonly repeatMse: number;
	/** Bytes of the state after the first and after the last row. */
	readonly stateBytesAtStart: number;
	readonly stateBytes: number;
	/** Median time of a step: of all, of the first and of the last tenth. */
	readonly secondsPerStep: number;
	readonly secondsPerStepAtStart: number;
	readonly secondsPerStepAtEnd: number;
	/** The slowest of a hundred. */
	readonly secondsPerStepP99: number;
	/** The largest difference between a scaled prediction and the one that the parallel form gives. */
	readonly maxDifference: number;
}

/** Rows that the parallel form takes at a time, so that a long file needs no more memory than a short one. */
const piece = 1024;

/**
 * Feed rows of a series to a model one by one, as they would arrive, and compare with the same rows in parallel.
 * @param part rows [start, end) that predictions are counted on; the model's `context` rows before them are fed first
 */
export async function replay(
	model: Forecaster,
	{ table, series }: Pick<Prepared, 'table' | 'series'>,
	part: readonly [number, number],
	options: ReplayOptions = {},
): Promise<Replay> {
	const { signal, onProgress, onPrediction } = options;
	const { horizon, scale, context, columns } = model.config;
	const [start, end] = [Math.max(0, part[0] - context), part[1]];
	using stream = new ForecastStream(model);
	using parallel = model.initialState();
	const seconds: number[] = [];
	const waiting: Float32Array[] = [];
	const sums = { squares: 0, absolutes: 0, repeated: 0, n: 0 };
	let stateBytesAtStart = 0;
	let maxDifference = 0;
	const row = new Float64Array(columns.length);
	for (let t = start; t < end; t++) {
		signal?.throwIfAborted();
		for (let c = 0; c < row.length; c++) row[c] = table.columns[c]![t]!;
		const began = performance.now();
		const predicted = await stream.push(row, table.dates?.[t]);
		seconds.push((performance.now() - began) / 1000);
		if (t === start) stateBytesAtStart = stream.bytes;
		waiting.push(
			predicted.map((value, i) => {
				const channel = Math.floor(i / horizon);
				return (value - scale.mean[channel]!) / scale.std[channel]!;
			}),
		);
		if (t >= part[0] - 1 && t + horizon < end) {
			count(sums, series.channels, waiting.at(-1)!, t, horizon);
			onPrediction?.(t, predicted);
		}
		if (waiting.length === piece || t === end - 1) {
			const others = await inParallel(model, series, parallel, t + 1 - waiting.length, waiting.length);
			maxDifference = Math.max(maxDifference, largestDifference(waiting, others, columns.length, horizon));
			waiting.length = 0;
		}
		onProgress?.((t + 1 - start) / (end - start));
	}
	const tenth = Math.max(1, Math.floor(seconds.length / 10));
	const { n } = sums;
	return {
		steps: end - start,
		mse: sums.squares / n,
		mae: sums.absolutes / n,
		repeatMse: sums.repeated / n,
		stateBytesAtStart,
		stateBytes: stream.bytes,
		secondsPerStep: quantile(seconds, 0.5),
		secondsPerStepAtStart: quantile(seconds.slice(0, tenth), 0.5),
		secondsPerStepAtEnd: quantile(seconds.slice(-tenth), 0.5),
		secondsPerStepP99: quantile(seconds, 0.99),
		maxDifference,
	};
}

function count(
	sums: { squares: number; absolutes: number; repeated: number; n: number },
	channels: readonly Float32Array[],
	predicted: Float32Array,
	t: number,
	horizon: number,
): void {
	channels.forEach((channel, c) => {
		for (let h = 0; h < horizon; h++) {
			const truth = channel[t + 1 + h]!;
			const error = predicted[c * horizon + h]! - truth;
			sums.squares += error * error;
			sums.absolutes += Math.abs(error);
			sums.repeated += (channel[t]! - truth) ** 2;
			sums.n++;
		}
	});
}

/** `[channels, rows, horizon]`: the rows after those that the state has seen, in one call. */
function inParallel(
	model: Forecaster,
	series: Prepared['series'],
	state: ReturnType<Forecaster['initialState']>,
	start: number,
	rows: number,
): Promise<Float32Array> {
	const channels = series.channels.length;
	const side = 1 + series.width;
	const x = new Float32Array(channels * rows * side);
	for (let c = 0; c < channels; c++) series.copy(x, c * rows * side, c, start, rows);
	return noGrad(() => scope(() => ({ read: model.forward(Tensor.empty([channels, rows, side], model.device, 'f32', x), state).read() })))
		.read;
}

function largestDifference(streamed: readonly Float32Array[], parallel: Float32Array, channels: number, horizon: number): number {
	let largest = 0;
	streamed.forEach((predicted, t) => {
		for (let c = 0; c < channels; c++) {
			for (let h = 0; h < horizon; h++) {
				const difference = Math.abs(predicted[c * horizon + h]! - parallel[(c * streamed.length + t) * horizon + h]!);
				if (!(difference <= largest)) largest = difference; // so that NaN counts as the largest
			}
		}
	});
	return largest;
}

function quantile(values: readonly number[], share: number): number {
	const sorted = [...values].sort((a, b) => a - b);
	return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}
