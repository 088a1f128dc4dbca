import { noGrad } from '../autograd.js';
import { ArgumentError } from '../errors.js';
import { scope } from '../tensor.js';
import type { Forecaster } from './forecaster.js';
import type { Windows } from './series.js';

export interface Score {
	/** Mean squared and absolute error of the predictions, on scaled values. */
	readonly mse: number;
	readonly mae: number;
	/** Mean squared error of repeating the last value. */
	readonly repeatMse: number;
	/** Windows, each of all channels. */
	readonly windows: number;
}

export interface ScoreOptions {
	/** Sequences at a time. @default 128 */
	readonly batch?: number;
	readonly signal?: AbortSignal | undefined;
	/** Called with the share that is done. */
	readonly onProgress?: (done: number) => void;
}

/**
 * How well a model predicts what follows each window, from the window alone: only the last token of each is counted.
 * @throws `signal.reason`, untouched, when it is aborted
 */
export async function score(model: Forecaster, data: Windows, options: ScoreOptions = {}): Promise<Score> {
	const { batch = 128, signal, onProgress } = options;
	const { length, horizon } = data.options;
	if (data.length === 0) throw new ArgumentError('score: the data holds no windows, expected at least one');
	let squares = 0;
	let absolutes = 0;
	let repeated = 0;
	for (let start = 0; start < data.length; start += batch) {
		signal?.throwIfAborted();
		const indices = Array.from({ length: Math.min(batch, data.length - start) }, (_, i) => start + i);
		const { read } = noGrad(() => scope(() => ({ read: model.forward(data.batch(indices).x, undefined, { last: true }).read() })));
		const predicted = await read;
		indices.forEach((index, b) => {
			const place = data.place(index);
			const channel = data.series.channels[place.channel]!;
			const now = place.start + length - 1;
			for (let h = 0; h < horizon; h++) {
				const truth = channel[now + 1 + h]!;
				const error = predicted[b * horizon + h]! - truth;
				squares += error * error;
				absolutes += Math.abs(error);
				repeated += (channel[now]! - truth) ** 2;
			}
		});
		onProgress?.((start + indices.length) / data.length);
	}
	const n = data.length * horizon;
	return { mse: squares / n, mae: absolutes / n, repeatMse: repeated / n, windows: data.windows };
}
