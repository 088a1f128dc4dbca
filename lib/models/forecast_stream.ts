import { noGrad } from '../autograd.js';
import { ArgumentError } from '../errors.js';
import { parseDate } from '../io/csv.js';
import type { State } from '../layers/state.js';
import type { Resource } from '../tensor.js';
import { scope, tensor } from '../tensor.js';
import type { Forecaster } from './forecaster.js';
import { calendarFeatures } from './series.js';

/**
 * A series as it arrives: one row in, what follows it out. The state that is kept does not grow with an Aaren model.
 * @example
 * using stream = new ForecastStream(model);
 * const next = await stream.push([5.8, 2.0], '2016-07-01 00:00:00');   // [channels · horizon], in the columns' units
 */
export class ForecastStream implements Resource {
	readonly model: Forecaster;
	readonly #state: State;

	/** @param state to go on from, as from `State.restore` @default nothing seen yet */
	constructor(model: Forecaster, state: State = model.initialState()) {
		this.model = model;
		this.#state = state;
	}

	/** What was seen, to be cloned or kept as a snapshot. */
	get state(): State {
		return this.#state;
	}

	get bytes(): number {
		return this.#state.bytes;
	}

	get disposed(): boolean {
		return this.#state.disposed;
	}

	/**
	 * @param row one number a column of the model's `columns`, all finite
	 * @param date of the row, needed if the model was trained with a calendar
	 * @returns `channels · horizon` numbers in the columns' units: the horizon of the first channel, then of the second, …
	 */
	async push(row: ArrayLike<number>, date?: string | null): Promise<Float32Array> {
		const { columns, calendar, horizon, scale } = this.model.config;
		if (row.length !== columns.length) throw new ArgumentError(`push: the row has ${row.length} numbers, expected ${columns.length}`);
		const time = calendar.length > 0 ? parseDate(date ?? '') : 0;
		if (time === undefined) throw new ArgumentError(`push: the date is ${JSON.stringify(date)}, expected one such as 2016-07-01 00:00:00`);
		const waves = calendarFeatures(calendar, time);
		const x = columns.flatMap((name, i) => {
			if (!Number.isFinite(row[i])) throw new ArgumentError(`push: \`${name}\` is ${row[i]}, expected a finite number`);
			return [(row[i]! - scale.mean[i]!) / scale.std[i]!, ...waves];
		});
		const { read } = noGrad(() =>
			scope(() => ({
				read: this.model.forward(tensor(x, [columns.length, 1, 1 + waves.length], { device: this.model.device }), this.#state).read(),
			})),
		);
		return (await read).map((value, i) => {
			const channel = Math.floor(i / horizon);
			return value * scale.std[channel]! + scale.mean[channel]!;
		});
	}

	dispose(): void {
		this.#state.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}
