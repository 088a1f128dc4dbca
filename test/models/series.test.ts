import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { readTable, type Table } from '../../lib/io/csv.js';
import { windowsOf } from '../../lib/models/forecasting.js';
import { calendarFeatures, calendarOf, calendarWidth, partsOf, Series, scaleOf, Windows } from '../../lib/models/series.js';

function table(rows: number, stepMinutes = 60): Table {
	const dates = Array.from({ length: rows }, (_, t) =>
		new Date(Date.UTC(2020, 0, 1) + t * stepMinutes * 60_000).toISOString().slice(0, 19),
	);
	return {
		path: 'x.csv',
		names: ['a', 'b'],
		rows,
		dates,
		columns: [Float64Array.from({ length: rows }, (_, t) => t), Float64Array.from({ length: rows }, () => 5)],
	};
}

describe('partsOf', () => {
	test('70, 10 and 20 %', () => {
		expect(partsOf(table(101), 'ratio')).toEqual({ train: [0, 70], validation: [70, 81], test: [81, 101] });
	});

	test('12, 4 and 4 months of 30 days, whatever the spacing', () => {
		expect(partsOf(table(17_420), 'ett')).toEqual({ train: [0, 8640], validation: [8640, 11_520], test: [11_520, 14_400] });
		expect(partsOf(table(69_680, 15), 'ett').test).toEqual([46_080, 57_600]);
		expect(() => partsOf(table(14_399), 'ett')).toThrow(FormatError);
	});
});

test('scaled by the training rows alone; a constant column keeps its unit', () => {
	const scale = scaleOf(table(20), [0, 10]);
	expect(scale.mean).toEqual([4.5, 5]);
	expect(scale.std).toEqual([expect.closeTo(Math.sqrt(8.25)), 1]);
});

test('the calendar has what the rows show and can tell apart', () => {
	const times = (rows: number, minutes: number) => Array.from({ length: rows }, (_, t) => t * minutes * 60_000);
	expect(calendarOf(times(8640, 60))).toEqual(['hour', 'week']);
	expect(calendarOf(times(1022, 24 * 60))).toEqual(['week', 'year']);
	expect(calendarOf(times(40, 60))).toEqual([]);
	expect(calendarOf([])).toEqual([]);
	expect(calendarOf([0, 0, 0])).toEqual([]);
	const noon = calendarFeatures(['hour', 'week'], 12 * 3_600_000);
	expect(noon).toHaveLength(calendarWidth(['hour', 'week']));
	expect(noon.slice(0, 4)).toEqual([expect.closeTo(0), expect.closeTo(-1), expect.closeTo(0), expect.closeTo(1)]);
});

test('windows: every place once, what follows each token, nothing outside', async () => {
	const series = new Series(table(30), { mean: [0, 0], std: [1, 1] }, []);
	const windows = new Windows(series, { length: 4, horizon: 3, start: 10, end: 20, stride: 2 });
	expect([windows.windows, windows.length]).toEqual([2, 4]);
	expect(windows.place(2)).toEqual({ channel: 0, start: 12 });
	const { x, y } = windows.batch([2, 3]);
	expect([x.shape, y.shape]).toEqual([
		[2, 4, 1],
		[2, 6],
	]);
	expect([...(await x.read())]).toEqual([12, 13, 14, 15, 5, 5, 5, 5]);
	expect([...(await y.read())].slice(0, 6)).toEqual([13, 14, 15, 16, 17, 18]);
	// The protocol's count: of rows − horizon + 1 test windows, each starting L before.
	expect(new Windows(series, { length: 4, horizon: 3, start: 16, end: 30 }).windows).toBe(8);
	expect(() => new Windows(series, { length: 4, horizon: 3, start: 10, end: 31 })).toThrow('rows [10, 31)');
});

// The published file where it is (OPLUS_DATA or ../shared/data); one of the same size where it is not.
const etth1 = path.join(process.env.OPLUS_DATA ?? path.join(__dirname, '..', '..', '..', 'shared', 'data'), 'series', 'ETTh1.csv');
const there = existsSync(etth1);
if (!there) console.warn(`test/models/series: ${etth1} is not there; a made series of its size takes its place`);

test.each([
	[96, 2785, 1.2944],
	[192, 2689, 1.3249],
])(
	'the protocol of ETTh1, horizon %d: %d windows, and the error of repeating the last value that others find',
	async (horizon, count, expected) => {
		const data = there ? await readTable(etth1) : table(17_420);
		const parts = partsOf(data, 'ett');
		const series = new Series(data, scaleOf(data, parts.train), []);
		const windows = windowsOf(series, parts.test, 96, horizon);
		expect(windows.windows).toBe(count);
		let squares = 0;
		for (let i = 0; i < windows.length; i++) {
			const { channel, start } = windows.place(i);
			const values = series.channels[channel]!;
			for (let h = 0; h < horizon; h++) squares += (values[start + 96 + h]! - values[start + 95]!) ** 2;
		}
		// The made series rises by one an hour in one of two channels: Σ h² / H, halved, in deviations of 8640 hours.
		const made = ((horizon + 1) * (2 * horizon + 1)) / 6 / 2 / ((8640 ** 2 - 1) / 12);
		const mse = squares / (windows.length * horizon);
		if (there) expect(mse).toBeCloseTo(expected, 4);
		else expect(mse / made).toBeCloseTo(1, 2);
	},
);
