import { createHash } from 'node:crypto';
import os from 'node:os';
import { FormatError } from '../errors.js';

/** A state as plain numbers. */
export interface Description {
	readonly kind: string;
	readonly batch: number;
	readonly length: number;
	readonly tensors: { name: string; shape: readonly number[]; data: Float32Array }[];
	readonly parts: Description[];
	/** What else belongs to it, as JSON. */
	readonly about?: Readonly<Record<string, unknown>>;
}

/**
 * A snapshot, all numbers little-endian:
 *
 *     8 bytes  "OPLUSNAP"        4 bytes  version (1)        4 bytes  N, the length of the header
 *     N bytes  header, JSON: Description with `offset` (in f32 from the start of the data) in place of `data`
 *     …        data, f32          32 bytes  SHA-256 of everything before
 */
const MAGIC = 'OPLUSNAP';
const VERSION = 1;
const FIXED = 16;
const CHECKSUM = 32;
/** A state has a handful of tensors a layer: more is not a state. */
const MAX_HEADER = 1 << 20;
const MAX_DEPTH = 8;

const fail = (message: string, offset?: number): never => {
	throw new FormatError('snapshot', message, offset === undefined ? {} : { offset });
};

/** The bits of numbers as they are: a state may hold integers under a float's name. */
function littleEndian(numbers: Float32Array): Buffer {
	const bytes = Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength);
	return os.endianness() === 'LE' ? bytes : Buffer.from(bytes).swap32();
}

const checksum = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

export function encode(state: Description): Uint8Array {
	const data: Float32Array[] = [];
	let offset = 0;
	const describe = (part: Description): unknown => ({
		kind: part.kind,
		batch: part.batch,
		length: part.length,
		tensors: part.tensors.map((tensor) => {
			const at = offset;
			data.push(tensor.data);
			offset += tensor.data.length;
			return { name: tensor.name, shape: tensor.shape, offset: at };
		}),
		parts: part.parts.map(describe),
		...(part.about && { about: part.about }),
	});
	const header = Buffer.from(JSON.stringify(describe(state)));
	const out = Buffer.alloc(FIXED + header.length + offset * 4 + CHECKSUM);
	out.write(MAGIC, 0, 'latin1');
	out.writeUInt32LE(VERSION, 8);
	out.writeUInt32LE(header.length, 12);
	header.copy(out, FIXED);
	let at = FIXED + header.length;
	for (const numbers of data) {
		at += littleEndian(numbers).copy(out, at);
	}
	checksum(out.subarray(0, at)).copy(out, at);
	return new Uint8Array(out.buffer, out.byteOffset, out.length);
}

/** @throws FormatError unless the bytes are one whole, unchanged snapshot */
export function decode(blob: Uint8Array): Description {
	if (!(blob instanceof Uint8Array)) fail(`found ${typeof blob}, expected a Uint8Array`);
	const bytes = Buffer.from(blob.buffer, blob.byteOffset, blob.length);
	if (bytes.length < FIXED + CHECKSUM) fail(`found ${bytes.length} bytes, expected at least ${FIXED + CHECKSUM}`);
	if (bytes.toString('latin1', 0, 8) !== MAGIC) fail(`does not start with ${MAGIC}`, 0);
	const version = bytes.readUInt32LE(8);
	if (version !== VERSION) fail(`found version ${version}, expected ${VERSION}`, 8);
	const end = bytes.length - CHECKSUM;
	if (!checksum(bytes.subarray(0, end)).equals(bytes.subarray(end))) fail('the checksum does not fit: the bytes were changed or cut', end);
	const headerLength = bytes.readUInt32LE(12);
	if (headerLength > MAX_HEADER || FIXED + headerLength > end)
		fail(`found a header of ${headerLength} bytes, expected at most ${Math.min(MAX_HEADER, end - FIXED)}`, 12);
	let header: unknown;
	try {
		header = JSON.parse(bytes.toString('utf8', FIXED, FIXED + headerLength));
	} catch (cause) {
		throw new FormatError('snapshot', 'the header is not JSON', { offset: FIXED, cause });
	}
	const data = bytes.subarray(FIXED + headerLength, end);
	if (data.length % 4) fail(`found ${data.length} bytes of data, expected a multiple of 4`, FIXED + headerLength);
	return read(header, data, 0);
}

function read(value: unknown, data: Buffer, depth: number): Description {
	const { kind, batch, length, tensors, parts, about } = (value ?? {}) as Record<string, unknown>;
	if (
		typeof kind !== 'string' ||
		!isCount(batch) ||
		!isCount(length) ||
		!Array.isArray(tensors) ||
		!Array.isArray(parts) ||
		depth > MAX_DEPTH
	) {
		return fail('the header does not describe a state', FIXED);
	}
	return {
		kind,
		batch,
		length,
		tensors: tensors.map((tensor: unknown) => {
			const { name, shape, offset } = (tensor ?? {}) as Record<string, unknown>;
			if (typeof name !== 'string' || !Array.isArray(shape) || shape.length > 8 || !shape.every(isCount) || !isCount(offset)) {
				return fail('the header does not describe a tensor', FIXED);
			}
			const n = shape.reduce((product: number, size: number) => product * size, 1);
			if (!Number.isSafeInteger(n) || (offset + n) * 4 > data.length)
				return fail(`\`${name}\` has shape [${shape}] at ${offset}, past the data`, FIXED);
			const numbers = new Float32Array(n);
			data.copy(Buffer.from(numbers.buffer), 0, offset * 4, (offset + n) * 4);
			if (os.endianness() !== 'LE') Buffer.from(numbers.buffer).swap32();
			return { name, shape, data: numbers };
		}),
		parts: parts.map((part: unknown) => read(part, data, depth + 1)),
		...(isObject(about) && { about }),
	};
}

function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
	return Number.isSafeInteger(value) && (value as number) >= 0;
}
