import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { SafetensorsFile, type StoredTensor, writeSafetensors } from '../../lib/io/safetensors.js';
import { file, temporary } from '../files.js';

/** A file put together by hand, after the published format: length, header, data. */
function bytes(header: unknown, data: Uint8Array = new Uint8Array(0), length?: bigint): Buffer {
	const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
	const size = Buffer.alloc(8);
	size.writeBigUInt64LE(length ?? BigInt(json.length));
	return Buffer.concat([size, json, data]);
}

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const one = { a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } };

test('what is written is the published format, byte by byte', async () => {
	const place = path.join(await temporary(), 'deep', 'x.safetensors');
	const tensors = new Map<string, StoredTensor>([
		['half', { dtype: 'F16', shape: [3], data: new Uint8Array(Uint16Array.of(0x3c00, 0, 0xbc00).buffer) }],
		['layer.weight', { dtype: 'F32', shape: [2, 1], data: floats(1.5, -2) }],
		['scalar', { dtype: 'F32', shape: [], data: floats(7) }],
	]);
	await writeSafetensors(place, tensors, { note: 'é' });
	const written = await fs.readFile(place);
	const length = Number(written.readBigUInt64LE());
	expect((8 + length) % 8).toBe(0);
	const text = written.toString('utf8', 8, 8 + length);
	expect(text).toMatch(/^\{.*\} *$/);
	expect(JSON.parse(text)).toEqual({
		__metadata__: { note: 'é' },
		'layer.weight': { dtype: 'F32', shape: [2, 1], data_offsets: [0, 8] },
		scalar: { dtype: 'F32', shape: [], data_offsets: [8, 12] },
		half: { dtype: 'F16', shape: [3], data_offsets: [12, 18] },
	});
	expect(written.subarray(8 + length)).toEqual(Buffer.concat([floats(1.5, -2), floats(7), new Uint8Array([0, 0x3c, 0, 0, 0, 0xbc])]));
});

test('f32, f16 and bf16 come back as the numbers they stand for', async () => {
	const half = Uint16Array.of(0x3c00, 0xc000, 0x3555, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0x8000, 0x7e00);
	const brain = Uint16Array.of(0x3f80, 0xc000, 0x3eab, 0x7f80);
	const header = {
		f: { dtype: 'F32', shape: [2], data_offsets: [0, 8] },
		h: { dtype: 'F16', shape: [9], data_offsets: [8, 26] },
		b: { dtype: 'BF16', shape: [4], data_offsets: [26, 34] },
	};
	const place = await file(
		'x.safetensors',
		bytes(header, Buffer.concat([floats(0.1, -3), new Uint8Array(half.buffer), new Uint8Array(brain.buffer)])),
	);
	await using opened = await SafetensorsFile.open(place);
	expect(opened.names).toEqual(['f', 'h', 'b']);
	expect([...(await opened.floats('f'))]).toEqual([Math.fround(0.1), -3]);
	expect([...(await opened.floats('h'))]).toEqual([
		1,
		-2,
		0.333251953125,
		2 ** -24,
		1023 * 2 ** -24,
		65504,
		Number.POSITIVE_INFINITY,
		-0,
		Number.NaN,
	]);
	expect([...(await opened.floats('b'))]).toEqual([1, -2, 0.333984375, Number.POSITIVE_INFINITY]);
	await expect(opened.floats('x')).rejects.toThrow('there is no tensor `x`');
});

describe('a file that is not what it should be is refused, with the byte', () => {
	const entry = (change: object) => ({ a: { ...one.a, ...change } });
	test.each<[string, Buffer, number, string]>([
		['nothing', Buffer.alloc(0), 0, 'has 0 bytes'],
		['a header longer than the file', bytes(one, floats(1, 2), 5000n), 0, "header's length is 5000"],
		['a header that runs over the end by one', bytes(one, floats(1, 2), BigInt(JSON.stringify(one).length + 9)), 0, "header's length is"],
		['a header of 2^63 bytes', bytes(one, floats(1, 2), 2n ** 63n), 0, "header's length is 9223372036854775808"],
		['no JSON', bytes('{"a": '), 8, 'no JSON'],
		['a list', bytes([1]), 8, 'no JSON object'],
		['data cut off', bytes(one, floats(1)), 8, 'truncated'],
		['data left over', bytes(one, floats(1, 2, 3)), 8 + JSON.stringify(one).length + 8, 'expected the end of the file'],
		['a type that is not known', bytes(entry({ dtype: 'toString' }), floats(1, 2)), 8, 'dtype is "toString"'],
		['a shape that is too large for its bytes', bytes(entry({ shape: [2 ** 50, 2 ** 50] }), floats(1, 2)), 8, 'takes'],
		['a shape that is no shape', bytes(entry({ shape: [-1] }), floats(1, 2)), 8, 'shape is not'],
		['offsets that run backwards', bytes(entry({ data_offsets: [8, 0] }), floats(1, 2)), 8, 'data_offsets are [8, 0]'],
		['offsets past the end', bytes(entry({ shape: [2 ** 40], data_offsets: [0, 2 ** 42] }), floats(1, 2)), 8, 'truncated'],
		['tensors that overlap', bytes({ ...one, b: one.a }, floats(1, 2)), 8 + JSON.stringify({ ...one, b: one.a }).length, 'starts here'],
		['metadata that is no text', bytes({ ...one, __metadata__: { a: 1 } }, floats(1, 2)), 8, '__metadata__'],
	])('%s', async (_, contents, offset, message) => {
		const place = await file('x.safetensors', contents);
		const before = process.memoryUsage.rss();
		const error = await SafetensorsFile.open(place).then(
			() => undefined,
			(reason: unknown) => reason as FormatError,
		);
		expect(error).toBeInstanceOf(FormatError);
		expect(error).toMatchObject({ path: place, offset });
		expect(error!.message).toContain(message);
		expect(process.memoryUsage.rss() - before).toBeLessThan(100e6);
	});
});

test('tensors of other types are passed over, and refused when they are asked for', async () => {
	const header = {
		mask: { dtype: 'BOOL', shape: [3], data_offsets: [0, 3] },
		scale: { dtype: 'F8_E4M3', shape: [2, 2], data_offsets: [3, 7] },
		packed: { dtype: 'F4', shape: [4], data_offsets: [7, 9] },
		ids: { dtype: 'I64', shape: [1], data_offsets: [9, 17] },
	};
	const data = Buffer.alloc(17);
	await using opened = await SafetensorsFile.open(await file('x.safetensors', bytes(header, data)));
	expect(opened.names).toEqual(['mask', 'scale', 'packed', 'ids']);
	expect(opened.has('ids')).toBe(true);
	expect(() => opened.entry('scale')).toThrow('`scale` is F8_E4M3, expected one of F32');
	await expect(opened.read('ids')).rejects.toThrow(FormatError);
	const half = { ...header, packed: { ...header.packed, shape: [5] } };
	await expect(SafetensorsFile.open(await file('x.safetensors', bytes(half, data)))).rejects.toThrow('shape [5] of F4 takes 2.5 bytes');
});

test('where the bytes of a tensor lie', async () => {
	const header = { a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] }, b: { dtype: 'BF16', shape: [1, 3], data_offsets: [8, 14] } };
	const whole = bytes(header, Buffer.alloc(14));
	await using opened = await SafetensorsFile.open(await file('x.safetensors', whole));
	expect(opened.entry('a')).toEqual({ dtype: 'F32', shape: [2], offset: whole.length - 14, bytes: 8 });
	expect(opened.entry('b')).toEqual({ dtype: 'BF16', shape: [1, 3], offset: whole.length - 6, bytes: 6 });
});
