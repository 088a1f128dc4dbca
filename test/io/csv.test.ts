import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { parseDate, readRows, readTable } from '../../lib/io/csv.js';
import { file, hourly } from '../files.js';

async function refused(contents: string | Uint8Array, columns?: string[]): Promise<FormatError> {
	const place = await file('x.csv', contents);
	const error = await readTable(place, { columns }).then(
		() => undefined,
		(reason: unknown) => reason,
	);
	expect(error).toBeInstanceOf(FormatError);
	expect((error as FormatError).path).toBe(place);
	expect((error as FormatError).message).not.toContain('\n');
	return error as FormatError;
}

describe('readTable', () => {
	test('reads numbers, keeps dates as text, and needs no final newline', async () => {
		const table = await readTable(await file('x.csv', 'date,a,b\r\n2020-01-01 00:00:00,1,-2.5e3\r\n\r\n2020-01-01 01:00:00,.5, +4'));
		expect(table.names).toEqual(['a', 'b']);
		expect(table.dates).toEqual(['2020-01-01 00:00:00', '2020-01-01 01:00:00']);
		expect(table.columns.map((column) => [...column])).toEqual([
			[1, 0.5],
			[-2500, 4],
		]);
	});

	test('takes the columns asked for, in that order; text elsewhere does not matter', async () => {
		const table = await readTable(await file('x.csv', 'a,word,b\n1,rain,2\n3,"su,n",4\n'), { columns: ['b', 'a'] });
		expect(table.dates).toBeNull();
		expect(table.columns.map((column) => [...column])).toEqual([
			[2, 4],
			[1, 3],
		]);
	});

	test('more rows than there was room for at first', async () => {
		const table = await readTable(await file('x.csv', hourly(10_000)));
		expect(table.rows).toBe(10_000);
		expect(table.columns[1]).toHaveLength(10_000);
		expect(table.dates!.at(-1)).toBe('2021-02-20 15:00:00');
	});

	test('names in UTF-8, with a mark in front, and in Latin-1', async () => {
		expect((await readTable(await file('x.csv', '\uFEFFµ,°C\n1,2\n'))).names).toEqual(['µ', '°C']);
		expect((await readTable(await file('x.csv', Buffer.from('W/m²,µ\n1,2\n', 'latin1')))).names).toEqual(['W/m²', 'µ']);
	});

	test.each([
		['a word', 'date,a,b\n2020-01-01,1,2\n2020-01-02,3,oops\n', 3, 3, '`b` is "oops", expected a finite number'],
		['an empty cell', 'a,b\n1,\n', 2, 2, '`b` is empty'],
		['NaN', 'a,b\n1,2\nNaN,2\n', 3, 1, '`a` is "NaN"'],
		['infinity', 'a,b\n1,2\n1,-inf\n', 3, 2, '`b` is "-inf"'],
		['a number too large', 'a\n1e999\n', 2, 1, '`a` is "1e999"'],
		['hexadecimal', 'a\n0x10\n', 2, 1, '`a` is "0x10"'],
		['a cell too few', 'a,b,c\n1,2,3\n4,5\n', 3, 3, '2 cells, expected 3'],
		['a cell too many', 'a,b\n1,2\n4,5,6\n', 3, 3, '3 cells, expected 2'],
		['no rows', 'a,b\n', 2, undefined, 'no rows'],
		['nothing', '', 1, undefined, 'empty'],
		['dates alone', 'date\n2020-01-01\n', 1, undefined, 'no columns beside the date `date`'],
	])('%s: line, column and what was expected', async (_, contents, line, column, message) => {
		const error = await refused(contents);
		expect([error.line, error.column]).toEqual([line, column]);
		expect(error.message).toContain(message);
	});

	test('a blank line or a quoted line break before it does not shift the line', async () => {
		expect((await refused('a,b\n\n1,2\n\n"3",x\n')).line).toBe(5);
		expect((await refused('word,b\n"two\nlines",2\n3,x\n', ['b'])).line).toBe(4);
	});

	test('a column that is not there: the names that are', async () => {
		const error = await refused('date,a,b\n2020-01-01,1,2\n', ['a', 'OT']);
		expect(error.message).toContain('there is no column `OT`, expected one of `a`, `b`');
	});

	test('a quote that never ends is an error of the file', async () => {
		expect((await refused('a,b\n1,"2\n3,4\n')).message).toMatch(/quote/i);
	});

	test('a file that is not there', async () => {
		await expect(readTable('nowhere.csv')).rejects.toMatchObject({ code: 'ENOENT', path: 'nowhere.csv' });
	});

	test("stops with the signal's own reason", async () => {
		const place = await file('x.csv', hourly(20_000));
		const reason = new Error('enough');
		const controller = new AbortController();
		let rows = 0;
		const reading = (async () => {
			for await (const _ of readRows(place, { signal: controller.signal })) if (++rows === 50) controller.abort(reason);
		})();
		await expect(reading).rejects.toBe(reason);
		expect(rows).toBe(50);
	});
});

test('dates as data files write them', () => {
	expect(parseDate('2016-07-01 05:00:00')).toBe(Date.UTC(2016, 6, 1, 5));
	expect(parseDate('1990/1/1 0:00')).toBe(Date.UTC(1990, 0, 1));
	expect(parseDate('2010-01-01T01:00:00')).toBe(Date.UTC(2010, 0, 1, 1));
	for (const text of ['', '12.5', '2016-13-01', '2016-01-01 25:00', 'yesterday']) expect(parseDate(text)).toBeUndefined();
});

// Published files where they are (OPLUS_DATA or ../shared/data); files made alike where they are not.
const data = path.join(process.env.OPLUS_DATA ?? path.join(__dirname, '..', '..', '..', 'shared', 'data'), 'series');
const there = existsSync(data);
if (!there) console.warn(`test/io/csv: ${data} is not there; files made for the test take its place`);

test('a header that is not ASCII and a file without a final newline, as published', async () => {
	const weather = there
		? path.join(data, 'weather.csv')
		: await file('w.csv', Buffer.from('date,SWDR (W/m²),OT\n2020-01-01 00:10:00,0.0,428.1\n', 'latin1'));
	const table = await readTable(weather);
	expect(table.names.some((name) => name.startsWith('SWDR (W/m'))).toBe(true);
	expect(table.columns.at(-1)![0]).toBe(428.1);
	const exchange = there ? path.join(data, 'exchange_rate.csv') : await file('e.csv', 'date,0,OT\n1990/1/1 0:00,0.7855,0.593');
	expect((await readTable(exchange)).columns.at(-1)![0]).toBe(0.593);
});
