import fs from 'node:fs/promises';
import { FormatError } from '../errors.js';
import { readBytes } from './bytes.js';
import { isObject } from './fields.js';
import { writeAtomic } from './files.js';

/** How safetensors names the ways of storing numbers that oplus reads and writes, and bytes a number. */
const sizes = { F32: 4, F16: 2, BF16: 2, I32: 4 } as const;
export type StoredType = keyof typeof sizes;

/** Bits a number of the other types that the format knows: a file may have such tensors, and whoever asks for one is refused. */
const otherBits: Readonly<Record<string, number>> = {
	BOOL: 8,
	U8: 8,
	I8: 8,
	F8_E4M3: 8,
	F8_E5M2: 8,
	F8_E8M0: 8,
	F8_E4M3FNUZ: 8,
	F8_E5M2FNUZ: 8,
	F4: 4,
	F6_E2M3: 6,
	F6_E3M2: 6,
	I16: 16,
	U16: 16,
	U32: 32,
	I64: 64,
	U64: 64,
	F64: 64,
	C64: 64,
};

/** A tensor as it lies in a file: `data` are its little-endian bytes, row-major. */
export interface StoredTensor {
	readonly dtype: StoredType;
	readonly shape: readonly number[];
	readonly data: Uint8Array;
}

interface Entry {
	readonly dtype: string;
	readonly shape: readonly number[];
	/** Bytes from the start of the file. */
	readonly start: number;
	readonly end: number;
}

/** The published limit of the header (huggingface/safetensors, src/tensor.rs, MAX_HEADER_SIZE). */
const longestHeader = 100_000_000;

/**
 * Write tensors to a safetensors file, atomically. The format: 8 bytes header length (little-endian), a JSON header padded
 * with spaces to 8 bytes, then the bytes of all tensors without gaps.
 * @param metadata text by name, kept under `__metadata__`
 */
export async function writeSafetensors(
	path: string,
	tensors: ReadonlyMap<string, StoredTensor>,
	metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
	// Wider numbers first, so that every tensor starts at a multiple of its own number's size.
	const sorted = [...tensors].sort(([, a], [, b]) => sizes[b.dtype] - sizes[a.dtype]);
	let offset = 0;
	const entries = sorted.map(([name, { dtype, shape, data }]) => {
		const start = offset;
		offset += data.byteLength;
		return [name, { dtype, shape, data_offsets: [start, offset] }] as const;
	});
	const header = Object.keys(metadata).length > 0 ? [['__metadata__', metadata] as const, ...entries] : entries;
	const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
	const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
	padded.writeBigUInt64LE(BigInt(padded.length - 8));
	json.copy(padded, 8);
	await writeAtomic(path, [padded, ...sorted.map(([, { data }]) => data)]);
}

/**
 * A safetensors file, open for reading. The header is checked whole before anything is trusted: a truncated or hostile file
 * is refused, and memory is taken only for bytes that are in the file.
 * @example await using file = await SafetensorsFile.open('model.safetensors');
 */
export class SafetensorsFile implements AsyncDisposable {
	readonly path: string;
	readonly metadata: Readonly<Record<string, string>>;
	readonly #entries: ReadonlyMap<string, Entry>;
	readonly #file: fs.FileHandle;

	private constructor(path: string, file: fs.FileHandle, entries: ReadonlyMap<string, Entry>, metadata: Readonly<Record<string, string>>) {
		this.path = path;
		this.metadata = metadata;
		this.#entries = entries;
		this.#file = file;
	}

	/** @throws FormatError with the byte at which the file is not what it should be */
	static async open(path: string): Promise<SafetensorsFile> {
		const file = await fs.open(path);
		try {
			const { size } = await file.stat();
			const { header, start } = await readHeader(path, file, size);
			const { entries, metadata } = entriesOf(path, header, start, size);
			return new SafetensorsFile(path, file, entries, metadata);
		} catch (error) {
			await file.close();
			throw error;
		}
	}

	get names(): readonly string[] {
		return [...this.#entries.keys()];
	}

	has(name: string): boolean {
		return this.#entries.has(name);
	}

	/**
	 * What the header says of a tensor. Its bytes lie wholly inside the file.
	 * @throws FormatError there is no such tensor, or oplus does not read numbers of its type
	 */
	entry(name: string): { readonly dtype: StoredType; readonly shape: readonly number[]; readonly offset: number; readonly bytes: number } {
		const entry = this.#entries.get(name);
		if (!entry) throw new FormatError(this.path, `there is no tensor \`${name}\`, expected it among ${this.#entries.size} tensors`);
		const { dtype, shape, start, end } = entry;
		if (!isStoredType(dtype)) {
			throw new FormatError(this.path, `\`${name}\` is ${dtype}, expected one of ${Object.keys(sizes).join(', ')}`, { offset: start });
		}
		return { dtype, shape, offset: start, bytes: end - start };
	}

	/** The bytes of one tensor. */
	async read(name: string): Promise<StoredTensor> {
		const { dtype, shape, offset, bytes } = this.entry(name);
		return { dtype, shape, data: await readBytes(this.path, this.#file, offset, offset + bytes) };
	}

	/** The numbers of one tensor, widened to f32. I32 is refused. */
	async floats(name: string): Promise<Float32Array> {
		const { dtype, data } = await this.read(name);
		if (dtype === 'F32') return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
		if (dtype === 'I32') throw new FormatError(this.path, `\`${name}\` is I32, expected F32, F16 or BF16`);
		const bits = new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2);
		return dtype === 'BF16' ? widenBf16(bits) : widenF16(bits);
	}

	async close(): Promise<void> {
		await this.#file.close();
	}

	[Symbol.asyncDispose](): Promise<void> {
		return this.close();
	}
}

async function readHeader(path: string, file: fs.FileHandle, size: number): Promise<{ header: unknown; start: number }> {
	if (size < 8) throw new FormatError(path, `the file has ${size} bytes, expected at least 8`, { offset: 0 });
	const length = (await readBytes(path, file, 0, 8)).readBigUInt64LE();
	const most = Math.min(size - 8, longestHeader);
	if (length > BigInt(most)) {
		throw new FormatError(path, `the header's length is ${length}, expected at most ${most}`, { offset: 0 });
	}
	const start = 8 + Number(length);
	const text = (await readBytes(path, file, 8, start)).toString('utf8');
	try {
		return { header: JSON.parse(text), start };
	} catch (error) {
		throw new FormatError(path, `the header is no JSON: ${(error as Error).message}`, { offset: 8, cause: error });
	}
}

function isStoredType(dtype: string): dtype is StoredType {
	return Object.hasOwn(sizes, dtype);
}

function entriesOf(path: string, header: unknown, dataStart: number, size: number) {
	if (!isObject(header)) throw new FormatError(path, 'the header is no JSON object', { offset: 8 });
	const entries = new Map<string, Entry>();
	let metadata: Record<string, string> = {};
	for (const [name, value] of Object.entries(header)) {
		if (name === '__metadata__') {
			if (!isObject(value) || Object.values(value).some((text) => typeof text !== 'string')) {
				throw new FormatError(path, '`__metadata__` is not text by name', { offset: 8 });
			}
			metadata = value as Record<string, string>;
		} else {
			entries.set(name, entryOf(path, name, value, dataStart, size));
		}
	}
	// The format allows no gaps and no overlaps: bytes that belong to nothing or to two tensors mean a damaged header.
	let end = dataStart;
	for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.start - b.start || a.end - b.end)) {
		if (entry.start !== end) throw new FormatError(path, `\`${name}\` starts here, expected at byte ${end}`, { offset: entry.start });
		end = entry.end;
	}
	if (end !== size) throw new FormatError(path, `the last tensor ends here, expected the end of the file at byte ${size}`, { offset: end });
	return { entries, metadata };
}

function entryOf(path: string, name: string, value: unknown, dataStart: number, size: number): Entry {
	const refuse = (message: string) => new FormatError(path, `\`${name}\`: ${message}`, { offset: 8 });
	if (!isObject(value)) throw refuse('its entry is no JSON object');
	const { dtype, shape, data_offsets: offsets } = value;
	if (typeof dtype !== 'string' || !(isStoredType(dtype) || Object.hasOwn(otherBits, dtype))) {
		throw refuse(`dtype is ${JSON.stringify(dtype)?.slice(0, 40)}, expected one of ${Object.keys(sizes).join(', ')}`);
	}
	const whole = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0;
	if (!Array.isArray(shape) || !shape.every(whole)) throw refuse('shape is not a list of integers from 0');
	if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole)) throw refuse('data_offsets are not two integers from 0');
	const [start, end] = offsets as [number, number];
	const bytes = shape.reduce((n: number, side: number) => n * side, isStoredType(dtype) ? sizes[dtype] : otherBits[dtype]! / 8);
	if (start > end || end > size - dataStart) {
		throw refuse(`data_offsets are [${start}, ${end}], expected within the ${size - dataStart} bytes of data (is the file truncated?)`);
	}
	if (bytes !== end - start)
		throw refuse(`shape [${shape.join(', ')}] of ${dtype} takes ${bytes} bytes, expected ${end - start} as in data_offsets`);
	return { dtype, shape: shape as number[], start: dataStart + start, end: dataStart + end };
}

/** bf16 is the upper half of f32. */
function widenBf16(bits: Uint16Array): Float32Array {
	const wide = new Uint32Array(bits.length);
	for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
	return new Float32Array(wide.buffer);
}

/** IEEE half: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
function widenF16(bits: Uint16Array): Float32Array {
	const wide = new Float32Array(bits.length);
	for (let i = 0; i < bits.length; i++) {
		const half = bits[i]!;
		const exponent = (half >> 10) & 31;
		const fraction = half & 1023;
		const size =
			exponent === 0
				? fraction * 2 ** -24
				: exponent === 31
					? fraction
						? Number.NaN
						: Number.POSITIVE_INFINITY
					: (1 + fraction / 1024) * 2 ** (exponent - 15);
		wide[i] = half & 0x8000 ? -size : size;
	}
	return wide;
}
