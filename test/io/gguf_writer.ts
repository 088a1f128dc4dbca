import type { WeightType } from '../../lib/io/pretrained.js';

export { quantize } from './quantize.js';

/** A value of a GGUF's metadata; numbers say their type, because readers are particular about it. */
export type GgufValue =
	| string
	| boolean
	| { u16: number }
	| { u32: number }
	| { i32: number }
	| { f32: number }
	| { u64: bigint }
	| string[]
	| Int32Array
	| Float32Array;

export interface GgufTensorData {
	/** Or ggml's number of a type that oplus does not know. */
	readonly type: WeightType | number;
	/** Row-major, outermost first. */
	readonly shape: readonly number[];
	readonly data: Uint8Array;
}

const typeNumbers = { f32: 0, f16: 1, q4_0: 2, q8_0: 8, q4_k: 12, q6_k: 14, bf16: 30 } as const;

/** The bytes of a GGUF file: magic, version, counts, metadata, tensors' places, then their bytes, each filled up to the alignment. */
export function ggufBytes(
	metadata: Readonly<Record<string, GgufValue>>,
	tensors: ReadonlyMap<string, GgufTensorData>,
	{ version = 3, alignment = 32 }: { version?: number; alignment?: number } = {},
): Buffer {
	const parts: Uint8Array[] = [Buffer.from('GGUF'), u32(version), u64(tensors.size), u64(Object.keys(metadata).length)];
	for (const [key, value] of Object.entries(metadata)) parts.push(text(key), valueBytes(value));
	let offset = 0;
	for (const [name, { type, shape, data }] of tensors) {
		const number = typeof type === 'number' ? type : typeNumbers[type];
		parts.push(text(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(number), u64(offset));
		offset += padded(data.length, alignment);
	}
	const header = Buffer.concat(parts);
	const filled = [header, Buffer.alloc(padded(header.length, alignment) - header.length)];
	for (const { data } of tensors.values()) filled.push(Buffer.from(data), Buffer.alloc(padded(data.length, alignment) - data.length));
	return Buffer.concat(filled);
}

const padded = (bytes: number, alignment: number) => Math.ceil(bytes / alignment) * alignment;

function u32(value: number): Buffer {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32LE(value);
	return bytes;
}

function u64(value: number | bigint): Buffer {
	const bytes = Buffer.alloc(8);
	bytes.writeBigUInt64LE(BigInt(value));
	return bytes;
}

function text(value: string): Buffer {
	const bytes = Buffer.from(value);
	return Buffer.concat([u64(bytes.length), bytes]);
}

function valueBytes(value: GgufValue): Buffer {
	if (typeof value === 'string') return Buffer.concat([u32(8), text(value)]);
	if (typeof value === 'boolean') return Buffer.concat([u32(7), Uint8Array.of(value ? 1 : 0)]);
	if (Array.isArray(value)) return Buffer.concat([u32(9), u32(8), u64(value.length), ...value.map(text)]);
	if (value instanceof Int32Array) return Buffer.concat([u32(9), u32(5), u64(value.length), new Uint8Array(value.slice().buffer)]);
	if (value instanceof Float32Array) return Buffer.concat([u32(9), u32(6), u64(value.length), new Uint8Array(value.slice().buffer)]);
	if ('u32' in value) return Buffer.concat([u32(4), u32(value.u32)]);
	if ('u16' in value) return Buffer.concat([u32(2), new Uint8Array(Uint16Array.of(value.u16).buffer)]);
	if ('i32' in value) return Buffer.concat([u32(5), new Uint8Array(Int32Array.of(value.i32).buffer)]);
	if ('u64' in value) return Buffer.concat([u32(10), u64(value.u64)]);
	return Buffer.concat([u32(6), new Uint8Array(Float32Array.of(value.f32).buffer)]);
}
