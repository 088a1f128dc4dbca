import { FormatError } from '../errors.js';
import { openFile, shown } from './fields.js';
import { GgufReader } from './gguf_reader.js';

/** A tensor as a GGUF's header names it. */
export interface GgufTensor {
	readonly name: string;
	/** Row-major: GGUF gives the innermost dimension first, this is the other way round. */
	readonly shape: readonly number[];
	/** ggml's number of the type. */
	readonly type: number;
	/** Bytes from the start of the file, not yet checked. */
	readonly offset: number;
}

export interface GgufHeader {
	/** Everything by its key. Without a prototype: keys come from the file. */
	readonly metadata: Readonly<Record<string, unknown>>;
	readonly tensors: readonly GgufTensor[];
	/** What offsets are multiples of. */
	readonly alignment: number;
	/** Bytes of the file. */
	readonly size: number;
}

const stringType = 8;
const listType = 9;

/** How values of the other types are read, and their bytes. */
const scalars: Readonly<Record<number, readonly [bytes: number, read: (bytes: Buffer, at: number) => unknown]>> = {
	0: [1, (bytes, at) => bytes.readUInt8(at)],
	1: [1, (bytes, at) => bytes.readInt8(at)],
	2: [2, (bytes, at) => bytes.readUInt16LE(at)],
	3: [2, (bytes, at) => bytes.readInt16LE(at)],
	4: [4, (bytes, at) => bytes.readUInt32LE(at)],
	5: [4, (bytes, at) => bytes.readInt32LE(at)],
	6: [4, (bytes, at) => bytes.readFloatLE(at)],
	7: [1, (bytes, at) => bytes.readUInt8(at) !== 0],
	10: [8, (bytes, at) => exact(bytes.readBigUInt64LE(at))],
	11: [8, (bytes, at) => exact(bytes.readBigInt64LE(at))],
	12: [8, (bytes, at) => bytes.readDoubleLE(at)],
};

// More than any vocabulary comes to, and what is taken for them stays below 200 MB.
const longestKey = 65_535; // as the format says
const longestString = 1_000_000;
const mostValues = 100_000;
/** Of a model, in one file or several. */
export const mostTensors = 20_000;
const mostListed = 2_000_000;
const mostDimensions = 4; // ggml's own

/**
 * Read the header of a GGUF file (little-endian, version 2 or 3), in pieces. Every count and length is checked before anything is made of it.
 *
 * (Not @huggingface/gguf: its version 0.4.6 cuts the last string of a value off where one of its pieces of 2 MB ends, drops U+FEFF from the
 * start of a token, and starts a value again with each piece, so that a vocabulary like Llama 3's takes a second and a hostile file of 40 MB half a
 * minute. test/io/gguf.test.ts compares the two.)
 * @throws FormatError
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	const reader = new GgufReader(path, file, size);
	await reader.need(24);
	if (reader.take(4).toString('latin1') !== 'GGUF') throw reader.refuse('this does not begin with GGUF', 0);
	const version = reader.take(4);
	if (version.readUInt32LE() !== 2 && version.readUInt32LE() !== 3) {
		const swapped = version.readUInt32BE() <= 3 ? ' (its bytes are swapped: big-endian)' : '';
		throw reader.refuse(`the version is ${version.readUInt32LE()}${swapped}, expected 2 or 3`, 4);
	}
	// The shortest tensor and the shortest value take 24 and 13 bytes.
	const tensorCount = reader.count('tensors', Math.min(Math.floor(size / 24), mostTensors));
	const valueCount = reader.count('values', Math.min(Math.floor(size / 13), mostValues));
	const metadata: Record<string, unknown> = Object.create(null);
	const budget = { listed: mostListed };
	for (let i = 0; i < valueCount; i++) {
		const { name, offset } = await readName(reader, 'key');
		if (name in metadata) throw reader.refuse(`the key \`${name.slice(0, 64)}\` comes twice`, offset);
		metadata[name] = await readValue(reader, name.slice(0, 64), budget);
	}
	const placed: GgufTensor[] = [];
	const seen = new Set<string>();
	for (let i = 0; i < tensorCount; i++) {
		const { name, offset } = await readName(reader, 'tensor');
		if (seen.has(name)) throw reader.refuse(`the tensor \`${name.slice(0, 64)}\` comes twice`, offset);
		seen.add(name);
		placed.push(await readTensor(reader, name));
	}
	const alignment = readAlignment(path, metadata['general.alignment'] ?? 32);
	const start = Math.ceil(reader.at / alignment) * alignment;
	return { metadata, tensors: placed.map((tensor) => ({ ...tensor, offset: start + tensor.offset })), alignment, size };
}

/**
 * What a GGUF says of itself, by key: strings, numbers, booleans and lists of them; whole numbers of 64 bits that a double does not hold
 * are bigints. The tokenizer is under `tokenizer.*`, in the first file of a model in parts.
 * @throws FormatError
 */
export async function ggufMetadata(path: string): Promise<Readonly<Record<string, unknown>>> {
	return (await readGgufHeader(path)).metadata;
}

async function readName(reader: GgufReader, what: string): Promise<{ name: string; offset: number }> {
	await reader.need(8);
	const offset = reader.at;
	const length = reader.count(`bytes of a ${what}`, longestKey);
	await reader.need(length + 4); // and the number that follows
	const name = reader.take(length).toString('latin1');
	if (!/^[\x20-\x7e]+$/.test(name)) throw reader.refuse(`a ${what} has no plain name`, offset);
	return { name, offset };
}

async function readValue(reader: GgufReader, key: string, budget: { listed: number }): Promise<unknown> {
	const type = reader.take(4).readUInt32LE();
	if (type === stringType) return readString(reader, key);
	if (type === listType) return readList(reader, key, budget);
	const [bytes, read] = scalarOf(reader, key, type);
	await reader.need(bytes);
	return read(reader.take(bytes), 0);
}

async function readString(reader: GgufReader, key: string): Promise<string> {
	await reader.need(8);
	const length = reader.count(`bytes of \`${key}\``, longestString);
	await reader.need(length);
	return reader.take(length).toString('utf8');
}

async function readList(reader: GgufReader, key: string, budget: { listed: number }): Promise<unknown[]> {
	await reader.need(12);
	const type = reader.take(4).readUInt32LE();
	const length = reader.count(`entries of \`${key}\``, budget.listed);
	budget.listed -= length;
	const list: unknown[] = [];
	if (type === stringType) {
		for (let i = 0; i < length; i++) {
			// Most strings are here already, and to wait for one takes longer than to read it.
			list.push(reader.string(longestString) ?? (await readString(reader, key)));
		}
		return list;
	}
	const [bytes, read] = scalarOf(reader, key, type);
	for (let i = 0; i < length; i++) {
		if (reader.left < bytes) await reader.need(bytes);
		list.push(read(reader.take(bytes), 0));
	}
	return list;
}

function scalarOf(reader: GgufReader, key: string, type: number) {
	const scalar = scalars[type];
	if (!scalar) throw reader.refuse(`\`${key}\` is of type ${type}, expected a number, a string or a list of these`, reader.at);
	return scalar;
}

/** With its offset from where the weights begin. */
async function readTensor(reader: GgufReader, name: string): Promise<GgufTensor> {
	const dimensions = reader.take(4).readUInt32LE();
	if (dimensions > mostDimensions) {
		throw reader.refuse(`a tensor has ${dimensions} dimensions, expected at most ${mostDimensions}`, reader.at - 4);
	}
	await reader.need(8 * dimensions + 12);
	const shape = Array.from({ length: dimensions }, () => reader.count('numbers along a dimension', 2 ** 32 - 1)).reverse();
	const type = reader.take(4).readUInt32LE();
	return { name, shape, type, offset: reader.count('bytes before a tensor', reader.size) };
}

function exact(value: bigint): number | bigint {
	return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function readAlignment(path: string, value: unknown): number {
	const whole = typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 2 ** 16;
	if (whole && (value & (value - 1)) === 0) return value;
	throw new FormatError(path, `\`general.alignment\` is ${shown(value)}, expected a power of two to 65536`);
}
