// A GGUF file, written from front to back: no more than one stretch of a tensor is ever held.
import fs from 'node:fs';
import { types } from './shapes.mjs';

const ALIGNMENT = 32;
const padded = (bytes) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

function u32(value) {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32LE(value);
	return bytes;
}

function u64(value) {
	const bytes = Buffer.alloc(8);
	bytes.writeBigUInt64LE(BigInt(value));
	return bytes;
}

function text(value) {
	const bytes = Buffer.from(value);
	return Buffer.concat([u64(bytes.length), bytes]);
}

const raw = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

/** Numbers say their type, because readers are particular about it. */
function valueBytes(value) {
	if (typeof value === 'string') return [u32(8), text(value)];
	if (typeof value === 'boolean') return [u32(7), Buffer.of(value ? 1 : 0)];
	if (Array.isArray(value)) return [u32(9), u32(8), u64(value.length), ...value.map(text)];
	if (value instanceof Int32Array) return [u32(9), u32(5), u64(value.length), raw(value)];
	if (value instanceof Float32Array) return [u32(9), u32(6), u64(value.length), raw(value)];
	if ('u32' in value) return [u32(4), u32(value.u32)];
	return [u32(6), raw(Float32Array.of(value.f32))];
}

/**
 * @param {string} file
 * @param {Record<string, string | boolean | string[] | Int32Array | Float32Array | { u32: number } | { f32: number }>} metadata
 * @param {Map<string, { type: keyof typeof types, shape: number[], rows: (first: number, end: number) => Uint8Array }>} tensors
 * shapes are row-major, outermost first; `rows` gives the bytes of some rows, one after the other
 */
export function writeGguf(file, metadata, tensors) {
	const parts = [Buffer.from('GGUF'), u32(3), u64(tensors.size), u64(Object.keys(metadata).length)];
	for (const [key, value] of Object.entries(metadata)) parts.push(text(key), ...valueBytes(value));
	let offset = 0;
	for (const [name, { type, shape }] of tensors) {
		parts.push(text(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(types[type].number), u64(offset));
		offset += padded(bytesOf(type, shape));
	}
	// Under its own name only once it is whole: a run that was stopped leaves no half a model behind for the next.
	const partial = `${file}.${process.pid}.partial`;
	const out = fs.openSync(partial, 'w');
	try {
		const header = Buffer.concat(parts);
		write(out, header);
		write(out, Buffer.alloc(padded(header.length) - header.length));
		for (const { type, shape, rows } of tensors.values()) {
			const count = shape.length === 1 ? 1 : shape[0];
			const rowBytes = bytesOf(type, shape) / count;
			const stretch = Math.max(1, Math.floor(2 ** 23 / rowBytes));
			for (let first = 0; first < count; first += stretch) write(out, rows(first, Math.min(count, first + stretch)));
			const bytes = count * rowBytes;
			write(out, Buffer.alloc(padded(bytes) - bytes));
		}
		fs.closeSync(out);
		fs.renameSync(partial, file);
	} catch (error) {
		fs.rmSync(partial, { force: true });
		throw error;
	}
}

/** writeSync may write a part. */
function write(out, bytes) {
	for (let at = 0; at < bytes.length; ) at += fs.writeSync(out, bytes, at);
}

function bytesOf(type, shape) {
	const { numbers, bytes } = types[type];
	return (shape.reduce((n, side) => n * side, 1) / numbers) * bytes;
}
