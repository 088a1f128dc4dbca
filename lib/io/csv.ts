import fs from 'node:fs';
import { parse } from 'csv-parse';
import { FormatError } from '../errors.js';

/** Numbers from a CSV file, column by column. */
export interface Table {
	readonly path: string;
	/** Names of the numeric columns, in the order asked for or found. */
	readonly names: readonly string[];
	/** One array a name, each of `rows` numbers, all finite. */
	readonly columns: readonly Float64Array[];
	readonly rows: number;
	/** The date column as it is written, all of which `parseDate` reads; null when the file has none. */
	readonly dates: readonly string[] | null;
}

/** One row, as it arrives. */
export interface Row {
	/** In the order of the columns asked for; only valid until the next row. */
	readonly values: Float64Array;
	readonly date: string | null;
	/** Line of the file that the row ends on, from 1. */
	readonly line: number;
}

export interface CsvOptions {
	/** Names of the numeric columns wanted, in this order. @default every column but the date */
	readonly columns?: readonly string[] | undefined;
	readonly signal?: AbortSignal | undefined;
}

/** How many rows to find room for when nothing is known yet. */
const someRows = 4096;

/**
 * Read a CSV file with a header line. The first column is the date when its cells are dates; every other column that is asked
 * for must hold a finite number in every row, and the date a date. Bytes that are no UTF-8 are taken as Latin-1; a missing final newline is fine.
 * @throws FormatError with line and column: a bad, empty or missing cell, an unknown column, no rows
 */
export async function readTable(path: string, options: CsvOptions = {}): Promise<Table> {
	let names: readonly string[] = [];
	let columns: Float64Array[] = [];
	const dates: string[] = [];
	let rows = 0;
	for await (const row of readRows(path, { ...options, onHeader: (found) => (names = found) })) {
		if (rows === 0) columns = names.map(() => new Float64Array(someRows));
		if (rows === columns[0]!.length) {
			columns = columns.map((column) => {
				const longer = new Float64Array(2 * rows);
				longer.set(column);
				return longer;
			});
		}
		for (let i = 0; i < columns.length; i++) columns[i]![rows] = row.values[i]!;
		if (row.date !== null) dates.push(row.date);
		rows++;
	}
	return { path, names, columns: columns.map((column) => column.slice(0, rows)), rows, dates: dates.length > 0 ? dates : null };
}

/**
 * The rows of a CSV file one by one, read as they are asked for: a file of any size takes the memory of a few thousand rows.
 * @param options.onHeader called once with the names of the numeric columns, before the first row
 * @throws FormatError as `readTable`
 */
export async function* readRows(
	path: string,
	options: CsvOptions & { onHeader?: (names: readonly string[]) => void } = {},
): AsyncGenerator<Row> {
	// One byte a character: numbers are ASCII in every encoding that CSV files come in, and text is decoded cell by cell.
	const parser = parse({ encoding: 'latin1', info: true, relax_column_count: true, skip_empty_lines: true, trim: true });
	const source = fs.createReadStream(path, { signal: options.signal });
	source.on('error', (error) => parser.destroy(error));
	source.pipe(parser);
	let header: Header | undefined;
	let cells: string[] | undefined;
	try {
		for await (const item of parser) {
			const { record, info } = item as { record: string[]; info: { lines: number } };
			options.signal?.throwIfAborted();
			if (!cells) {
				cells = record.map(decode);
				cells[0] = cells[0]!.replace(/^\uFEFF/, '');
				continue;
			}
			if (!header) {
				header = layout(path, cells, record, options.columns);
				options.onHeader?.(header.names);
			}
			yield rowOf(path, header, record, info.lines);
		}
	} catch (error) {
		options.signal?.throwIfAborted(); // the stream reports an abort in its own words; the caller's reason is what counts
		throw explain(path, error);
	} finally {
		source.destroy();
		parser.destroy();
	}
	if (!cells) throw new FormatError(path, 'the file is empty, expected a header line and rows of numbers', { line: 1 });
	if (!header) throw new FormatError(path, 'the file has a header and no rows, expected rows of numbers', { line: 2 });
}

/** What the header and the first row say about the columns. */
interface Header {
	readonly cells: readonly string[];
	readonly names: readonly string[];
	/** Where each of `names` stands. */
	readonly at: readonly number[];
	/** Whether the first column is the date. */
	readonly dated: boolean;
}

function layout(path: string, cells: readonly string[], first: readonly string[], wanted: readonly string[] | undefined): Header {
	const dated = first[0] !== undefined && !isNumber(first[0]) && parseDate(first[0]) !== undefined;
	const all = cells.map((name, i) => ({ name, i })).slice(dated ? 1 : 0);
	const found = () => all.map(({ name }) => `\`${name}\``).join(', ');
	if (all.length === 0)
		throw new FormatError(path, `found no columns beside the date \`${cells[0]}\`, expected at least one of numbers`, { line: 1 });
	const chosen = (wanted ?? all.map(({ name }) => name)).map((name, i) => {
		const column = wanted ? all.find((item) => item.name === name) : all[i];
		if (!column) throw new FormatError(path, `there is no column \`${name}\`, expected one of ${found()}`, { line: 1 });
		return column;
	});
	if (chosen.length === 0) throw new FormatError(path, `no columns are asked for, expected some of ${found()}`, { line: 1 });
	return { cells, dated, names: chosen.map(({ name }) => name), at: chosen.map(({ i }) => i) };
}

function rowOf(path: string, { cells, names, at, dated }: Header, record: readonly string[], line: number): Row {
	if (record.length !== cells.length) {
		throw new FormatError(path, `the row has ${record.length} cells, expected ${cells.length} as in the header`, {
			line,
			column: Math.min(record.length, cells.length) + 1,
		});
	}
	const values = new Float64Array(at.length);
	for (let i = 0; i < at.length; i++) {
		const cell = record[at[i]!]!;
		const value = Number(cell);
		if (!Number.isFinite(value) || !isNumber(cell)) {
			const what = cell === '' ? 'is empty' : `is ${JSON.stringify(decode(cell).slice(0, 40))}`;
			throw new FormatError(path, `\`${names[i]}\` ${what}, expected a finite number`, { line, column: at[i]! + 1 });
		}
		values[i] = value;
	}
	const date = dated ? decode(record[0]!) : null;
	if (date !== null && parseDate(date) === undefined) {
		throw new FormatError(path, `the date is ${JSON.stringify(date.slice(0, 40))}, expected year-month-day with or without a time`, {
			line,
			column: 1,
		});
	}
	return { values, date, line };
}

/** What CSV writers write; not all that `Number` takes (`0x10`, empty text). */
function isNumber(cell: string): boolean {
	return /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(cell);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Text whose bytes came one a character: UTF-8 if it is, else Latin-1. */
function decode(text: string): string {
	// biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII is what is meant
	if (/^[\x00-\x7f]*$/.test(text)) return text;
	try {
		return utf8.decode(Buffer.from(text, 'latin1'));
	} catch {
		return text; // not UTF-8, so Latin-1, as which it was read
	}
}

/** The parser's own errors (a quote that never ends, …) as ours. */
function explain(path: string, error: unknown): unknown {
	const { code, lines } = error as { code?: string; lines?: number };
	if (!code?.startsWith('CSV_')) return error;
	return new FormatError(path, `${(error as Error).message}, expected comma-separated values`, { line: lines ?? 1, cause: error });
}

/**
 * Milliseconds since 1970 of a date as data files write it: `2016-07-01`, `1990/1/1 0:00`, `2010-01-01T01:00:00`. Taken as
 * UTC whatever the machine's time zone: a file means the same everywhere.
 * @returns undefined when the text is no such date
 */
export function parseDate(text: string): number | undefined {
	const match = /^(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?Z?)?$/.exec(text);
	if (!match) return undefined;
	const [year, month, day, hour, minute, second] = match.slice(1).map((part) => Number(part ?? 0)) as [
		number,
		number,
		number,
		number,
		number,
		number,
	];
	if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 24 || minute > 59 || second > 60) return undefined;
	return Date.UTC(year, month - 1, day, hour, minute, second);
}
