import type { DeviceName } from '../device.js';
import { ArgumentError, FormatError } from '../errors.js';
import { parseDate, type Table } from '../io/csv.js';
import { Tensor } from '../tensor.js';
import type { Batch, Dataset } from '../train/fit.js';

/** What a row's date tells a model: the hour of the day, the day of the week, the day of the year; as waves. */
export type Calendar = 'hour' | 'week' | 'year';

const hours = 3_600_000;
const days = 24 * hours;
/** Length in milliseconds, where it starts (1970-01-01 was a Thursday), and how many harmonics say where in it a row is. */
const waves: Record<Calendar, { readonly length: number; readonly harmonics: number }> = {
	hour: { length: days, harmonics: 2 },
	week: { length: 7 * days, harmonics: 1 },
	year: { length: 365.2425 * days, harmonics: 1 },
};

/** Numbers a row that a calendar adds. */
export function calendarWidth(calendar: readonly Calendar[]): number {
	return calendar.reduce((sum, name) => sum + 2 * waves[name].harmonics, 0);
}

/** Sine and cosine of where in each cycle a time is. @param time milliseconds since 1970 */
export function calendarFeatures(calendar: readonly Calendar[], time: number): number[] {
	return calendar.flatMap((name) => {
		const { length, harmonics } = waves[name];
		return Array.from({ length: harmonics }, (_, k) => (2 * Math.PI * (k + 1) * time) / length).flatMap((angle) => [
			Math.sin(angle),
			Math.cos(angle),
		]);
	});
}

/** The cycles that the training rows show at least twice and that their spacing resolves. */
export function calendarOf(times: readonly number[]): Calendar[] {
	const span = (times.at(-1) ?? 0) - (times[0] ?? 0);
	const step = span / Math.max(times.length - 1, 1);
	return (Object.keys(waves) as Calendar[]).filter((name) => step > 0 && waves[name].length <= span / 2 && waves[name].length >= 4 * step);
}

/** Milliseconds since 1970 of every row. */
export function timesOf({ dates }: Table): number[] | null {
	return dates?.map((text) => parseDate(text)!) ?? null; // `readTable` has checked them
}

/** `ratio`: 70 % to train, 10 % to validate, 20 % to test. `ett`: 12, 4 and 4 months of 30 days, as the ETT data sets are used. */
export type Split = 'ratio' | 'ett';

/** Row numbers [start, end) of the parts. */
export interface Parts {
	readonly train: readonly [number, number];
	readonly validation: readonly [number, number];
	readonly test: readonly [number, number];
}

export function partsOf(table: Table, split: Split): Parts {
	const { rows, path } = table;
	if (split === 'ratio') {
		const train = Math.floor(rows * 0.7);
		const test = Math.floor(rows * 0.2);
		return { train: [0, train], validation: [train, rows - test], test: [rows - test, rows] };
	}
	const times = timesOf(table);
	const step = times && times.length > 1 ? times[1]! - times[0]! : hours;
	const month = (30 * days) / step;
	if (!Number.isInteger(month))
		throw new FormatError(path, `rows are ${step / 1000} seconds apart, expected a part of 30 days for the split of ETT`, {
			line: 3,
			column: 1,
		});
	if (rows < 20 * month)
		throw new FormatError(path, `the file has ${rows} rows, expected at least ${20 * month} (20 months) for the split of ETT`, {
			line: rows + 1,
		});
	return { train: [0, 12 * month], validation: [12 * month, 16 * month], test: [16 * month, 20 * month] };
}

/** How columns become numbers of mean 0 and variance 1. */
export interface Scale {
	readonly mean: readonly number[];
	readonly std: readonly number[];
}

/** Of the training rows; a constant column keeps its unit. */
export function scaleOf({ columns }: Table, [start, end]: readonly [number, number]): Scale {
	const mean = columns.map((column) => column.subarray(start, end).reduce((sum, value) => sum + value, 0) / (end - start));
	const std = columns.map((column, i) => {
		const variance = column.subarray(start, end).reduce((sum, value) => sum + (value - mean[i]!) ** 2, 0) / (end - start);
		return Math.sqrt(variance) || 1;
	});
	return { mean, std };
}

/** A table as a model reads it. */
export class Series {
	/** One array a channel, each scaled by the training rows. */
	readonly channels: readonly Float32Array[];
	/** `rows · width` calendar features. */
	readonly calendar: Float32Array;
	readonly width: number;
	readonly rows: number;

	/** @throws FormatError if the calendar is wanted and the table has no dates */
	constructor(table: Table, { mean, std }: Scale, calendar: readonly Calendar[]) {
		this.rows = table.rows;
		this.channels = table.columns.map((column, i) => Float32Array.from(column, (value) => (value - mean[i]!) / std[i]!));
		this.width = calendarWidth(calendar);
		const times = this.width > 0 ? timesOf(table) : [];
		if (!times)
			throw new FormatError(table.path, 'the first column holds no dates, expected some: the model was trained with them', {
				line: 2,
				column: 1,
			});
		this.calendar = Float32Array.from(times.flatMap((time) => calendarFeatures(calendar, time)));
	}

	/** Copy rows [start, start + rows) of a channel, value and calendar features side by side, into `x` from `offset` on. */
	copy(x: Float32Array, offset: number, channel: number, start: number, rows: number): void {
		const values = this.channels[channel]!;
		const side = 1 + this.width;
		for (let t = 0; t < rows; t++) {
			const at = offset + t * side;
			x[at] = values[start + t]!;
			for (let k = 0; k < this.width; k++) x[at + 1 + k] = this.calendar[(start + t) * this.width + k]!;
		}
	}
}

export interface WindowsOptions {
	/** Rows that the model sees, T. */
	readonly length: number;
	/** Rows after each that it predicts. */
	readonly horizon: number;
	/** First row of the first window. */
	readonly start: number;
	/** One past the last row that a prediction may reach. */
	readonly end: number;
	/** Rows between the starts of two windows. @default 1 */
	readonly stride?: number;
	/** @default 'cpu' */
	readonly device?: DeviceName;
}

/**
 * Windows of a series, every channel a sequence of its own: example i is window ⌊i / channels⌋ of channel i mod channels.
 * A batch is x `[B, T, 1 + width]` and y `[B, T + horizon − 1]`: what follows token t is y from t to t + horizon.
 */
export class Windows implements Dataset {
	readonly length: number;
	readonly windows: number;
	readonly options: WindowsOptions;
	readonly series: Series;

	constructor(series: Series, options: WindowsOptions) {
		const { length, horizon, start, end, stride = 1 } = options;
		for (const [name, value] of Object.entries({ length, horizon, stride })) {
			if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`Windows: ${name} is ${value}, expected an integer from 1`);
		}
		if (start < 0 || end > series.rows) throw new ArgumentError(`Windows: rows [${start}, ${end}), expected within [0, ${series.rows})`);
		this.series = series;
		this.options = options;
		this.windows = Math.max(0, Math.floor((end - start - length - horizon) / stride) + 1);
		this.length = this.windows * series.channels.length;
	}

	/** Channel and first row of an example. */
	place(index: number): { readonly channel: number; readonly start: number } {
		const channels = this.series.channels.length;
		return { channel: index % channels, start: this.options.start + Math.floor(index / channels) * (this.options.stride ?? 1) };
	}

	batch(indices: readonly number[]): Batch {
		const { length, horizon, device } = this.options;
		const side = 1 + this.series.width;
		const future = length + horizon - 1;
		const x = new Float32Array(indices.length * length * side);
		const y = new Float32Array(indices.length * future);
		indices.forEach((index, b) => {
			const { channel, start } = this.place(index);
			this.series.copy(x, b * length * side, channel, start, length);
			y.set(this.series.channels[channel]!.subarray(start + 1, start + 1 + future), b * future);
		});
		return {
			x: Tensor.empty([indices.length, length, side], device, 'f32', x),
			y: Tensor.empty([indices.length, future], device, 'f32', y),
		};
	}
}
