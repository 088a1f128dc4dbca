import { resolve } from 'node:path';
import { FormatError } from '../errors.js';
import { openFile, shown } from './fields.js';
import { GgufWalk } from './gguf_walk.js';

/** A tensor as a GGUF's header names it. */
export interface GgufTensor {
	readonly name: string;
	/** Row-major: GGUF gives the innermost dimension first, this is the other way round. */
	readonly shape: readonly number[];
	/** ggml's number of the type, and its name. */
	readonly type: number;
	readonly typeName: string;
	/** Bytes from the start of the file, not yet checked. */
	readonly offset: number;
}

export interface GgufHeader {
	/** Everything by its key; 64-bit integers as numbers where they are exact. Without a prototype: keys come from the file. */
	readonly metadata: Readonly<Record<string, unknown>>;
	readonly tensors: readonly GgufTensor[];
	/** What offsets are multiples of. */
	readonly alignment: number;
	/** Bytes of the file. */
	readonly size: number;
}

/**
 * Read the header of a GGUF file (little-endian, version 2 or 3). It is first walked by oplus, which checks every count and length, and
 * then decoded by @huggingface/gguf, which trusts them: that package stops at counts no sooner than at a million and takes what lies behind the end
 * of a file for zeros. Two things it gets wrong are set right (`mended` in gguf_walk.ts).
 * @throws FormatError
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	const { end, mended } = await new GgufWalk(path, file, size).walk();
	// Loaded when it is needed: it takes a tenth of a second.
	const { gguf, GGMLQuantizationType } = await import('@huggingface/gguf');
	const parsed = await gguf(resolve(path), { allowLocalFile: true }).catch((error: Error) => {
		throw new FormatError(path, `the header cannot be decoded: ${error.message}`, { cause: error });
	});
	if (parsed.tensorInfoByteRange[1] !== end) {
		throw new FormatError(path, `the header ends at byte ${parsed.tensorInfoByteRange[1]}, expected byte ${end}`);
	}
	const metadata: Record<string, unknown> = Object.create(null);
	for (const [key, value] of Object.entries(parsed.metadata)) metadata[key] = typeof value === 'bigint' ? exact(value) : value;
	for (const { key, index, text } of mended) {
		if (index === null) metadata[key] = text;
		else (metadata[key] as string[])[index] = text;
	}
	const alignment = readAlignment(path, metadata['general.alignment'] ?? 32);
	const start = Math.ceil(end / alignment) * alignment;
	const tensors = parsed.tensorInfos.map(({ name, shape, dtype, offset }) => ({
		name,
		shape: shape.map(Number).reverse(),
		type: dtype as number,
		typeName: GGMLQuantizationType[dtype] ?? `type ${dtype}`,
		offset: start + Number(offset),
	}));
	return { metadata, tensors, alignment, size };
}

/**
 * What a GGUF says of itself, by key: strings, numbers, booleans and lists of them; whole numbers of 64 bits that a double does not hold
 * are bigints. The tokenizer is under `tokenizer.*`.
 * @throws FormatError
 */
export async function ggufMetadata(path: string): Promise<Readonly<Record<string, unknown>>> {
	return (await readGgufHeader(path)).metadata;
}

function exact(value: bigint): number | bigint {
	return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function readAlignment(path: string, value: unknown): number {
	const whole = typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 2 ** 16;
	if (whole && (value & (value - 1)) === 0) return value;
	throw new FormatError(path, `\`general.alignment\` is ${shown(value)}, expected a power of two to 65536`);
}
