import fs from 'node:fs/promises';
import { FormatError } from '../errors.js';
import { readBytes } from './bytes.js';

/** Whether this is a JSON object: no list, not null. */
export function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value from a file, short enough for a sentence however long or deep it is. */
export function shown(value: unknown): string {
	if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value);
	if (isObject(value)) return 'an object';
	if (!Array.isArray(value)) return String(value);
	if (value.length > 8 || value.some((each) => typeof each === 'object')) return `a list of ${value.length}`;
	return `[${value.map(shown).join(', ')}]`;
}

/** An index of a thousand layers takes a little over a megabyte; parsed, hostile JSON takes fifty times its length. */
const longestJson = 2 * 2 ** 20;

/**
 * The object in a JSON file.
 * @throws FormatError the file is not there, is too long or holds anything else
 */
export async function readJson(path: string): Promise<Fields> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	if (size > longestJson) throw new FormatError(path, `the file has ${size} bytes, expected at most ${longestJson}`);
	const text = (await readBytes(path, file, 0, size)).toString('utf8');
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (error) {
		throw new FormatError(path, `this is no JSON: ${(error as Error).message}`, { cause: error });
	}
	if (!isObject(value)) throw new FormatError(path, `this is ${shown(value)}, expected a JSON object`);
	return new Fields(path, value);
}

/** A regular file, open for reading. @throws FormatError it is not there, may not be read, is a folder or a device */
export async function openFile(path: string): Promise<fs.FileHandle> {
	let file: fs.FileHandle | undefined;
	try {
		// A pipe is looked at before it is opened: opening it would wait for who writes.
		if (!(await fs.stat(path)).isFile()) throw new FormatError(path, 'this is a folder or a device, expected a file');
		file = await fs.open(path);
		return file;
	} catch (error) {
		if (error instanceof FormatError) throw error;
		throw new FormatError(path, `this cannot be opened (${(error as NodeJS.ErrnoException).code}), expected a file`, { cause: error });
	}
}

/** From where to where a number may be, both included; `otherwise` is taken when the file says nothing. */
interface Range<T> {
	readonly least?: number;
	readonly most?: number;
	readonly otherwise?: T;
}

/**
 * What a file says of itself, by name: JSON, or a GGUF's metadata. Every value is checked when it is asked for; null counts as not there.
 * @param inside the name of the object that these are fields of, for messages
 */
export class Fields {
	readonly path: string;
	readonly #values: Readonly<Record<string, unknown>>;
	readonly #inside: string;

	constructor(path: string, values: Readonly<Record<string, unknown>>, inside = '') {
		this.path = path;
		this.#values = values;
		this.#inside = inside;
	}

	get names(): readonly string[] {
		return Object.keys(this.#values);
	}

	/** The value as it is, undefined when there is none. Names like `constructor` are nothing special. */
	value(name: string): unknown {
		return Object.hasOwn(this.#values, name) ? (this.#values[name] ?? undefined) : undefined;
	}

	has(name: string): boolean {
		return this.value(name) !== undefined;
	}

	/** An error that says what was found under a name. */
	refuse(name: string, expected: string): FormatError {
		const found = this.value(name);
		return new FormatError(
			this.path,
			`\`${this.#inside}${name}\` is ${found === undefined ? 'not there' : shown(found)}, expected ${expected}`,
		);
	}

	/** @param range @default 1 to 2⁵³ − 1 */
	integer<T = never>(name: string, range: Range<T> = {}): number | T {
		const { least = 1, most = Number.MAX_SAFE_INTEGER } = range;
		const value = this.value(name);
		if (value === undefined && 'otherwise' in range) return range.otherwise as T;
		if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= most) return value;
		throw this.refuse(name, most === Number.MAX_SAFE_INTEGER ? `an integer from ${least}` : `an integer from ${least} to ${most}`);
	}

	/** A finite number above 0, or from `least`. */
	number<T = never>(name: string, range: Range<T> = {}): number | T {
		const { least = Number.MIN_VALUE, most = Number.MAX_VALUE } = range;
		const value = this.value(name);
		if (value === undefined && 'otherwise' in range) return range.otherwise as T;
		if (typeof value === 'number' && value >= least && value <= most) return value; // NaN is neither
		const from = least === Number.MIN_VALUE ? 'above 0' : `from ${least}`;
		throw this.refuse(name, `a number ${from}${most === Number.MAX_VALUE ? '' : ` to ${most}`}`);
	}

	boolean(name: string, otherwise: boolean): boolean {
		const value = this.value(name);
		if (value === undefined) return otherwise;
		if (typeof value === 'boolean') return value;
		throw this.refuse(name, 'true or false');
	}

	text<T = never>(name: string, range: { readonly otherwise?: T } = {}): string | T {
		const value = this.value(name);
		if (value === undefined && 'otherwise' in range) return range.otherwise as T;
		if (typeof value === 'string') return value;
		throw this.refuse(name, 'text');
	}

	/** The fields of an object in here, null when there is none. */
	object(name: string): Fields | null {
		const value = this.value(name);
		if (value === undefined) return null;
		if (isObject(value)) return new Fields(this.path, value, `${this.#inside}${name}.`);
		throw this.refuse(name, 'an object');
	}
}
