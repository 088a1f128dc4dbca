import { gguf } from '@huggingface/gguf';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { ggufMetadata } from '../../lib/io/gguf.js';
import { readGgufHeader } from '../../lib/io/gguf_header.js';
import { openPretrained } from '../../lib/io/open_pretrained.js';
import { file } from '../files.js';
import { type GgufTensorData, type GgufValue, ggufBytes } from './gguf_writer.js';
import { llamaGguf } from './llama_gguf.js';
import { folderOf, randomTensors, smallConfig, smallSizes } from './models.js';

test('metadata as it is, long and short', async () => {
	const metadata = {
		'a.mark': '\ufeffleft as it is',
		'a.list': ['\ufeff', '', '\ufeffusing', 'x'],
		'a.long': 'é'.repeat(499_999),
		// Longer than what is read at a time: strings lie across its ends.
		'a.tokens': Array.from({ length: 40_000 }, (_, i) => `token ${i} ${'ü'.repeat(i % 90)}`),
		'a.longer': ['x', 'ü'.repeat(499_000), 'y'.repeat(1_000_000)],
		'a.big': { u64: 2n ** 63n },
		'a.small': { u64: 12n },
		'a.flag': true,
		'a.scores': Float32Array.from({ length: 300_000 }, (_, i) => i / 7),
		'a.types': Int32Array.of(-1, 6),
		['__proto__']: 'nothing special',
	};
	const found = await ggufMetadata(await file('x.gguf', ggufBytes(metadata, new Map())));
	const lists = { 'a.scores': [...metadata['a.scores']], 'a.types': [-1, 6] };
	const expected = { ...metadata, ...lists, 'a.big': 2n ** 63n, 'a.small': 12 };
	for (const [key, value] of Object.entries(expected)) expect(found[key], key).toEqual(value);
	expect(Object.keys(found)).toEqual(Object.keys(metadata));
});

test('headers mean the same to the package of Hugging Face', async () => {
	const files = await openPretrained(await folderOf(smallConfig, randomTensors(smallSizes)));
	const more = {
		'tokenizer.ggml.tokens': ['a', '▁b', ''],
		'tokenizer.ggml.scores': Float32Array.of(0.5),
		'a.flag': false,
		'a.u64': { u64: 5n },
	};
	const place = await file('x.gguf', await llamaGguf(files, 'f16', more));
	const theirs = await gguf(place, { allowLocalFile: true });
	const ours = await readGgufHeader(place);
	for (const [key, value] of Object.entries(ours.metadata)) {
		expect(theirs.metadata[key as keyof typeof theirs.metadata], key).toEqual(key === 'a.u64' ? 5n : value);
	}
	expect(Object.keys(ours.metadata)).toEqual(Object.keys(theirs.metadata).slice(3)); // after version and counts
	const start = Number(theirs.tensorDataOffset);
	expect(ours.tensors).toEqual(
		theirs.tensorInfos.map(({ name, shape, dtype, offset }) => ({
			name,
			shape: shape.map(Number).reverse(),
			type: dtype as number,
			offset: start + Number(offset),
		})),
	);
});

describe('a header that is not as it should be is refused, with the file and the byte', () => {
	const tensor: GgufTensorData = { type: 'f32', shape: [2], data: new Uint8Array(8) };
	const two = new Map([
		['t.one', tensor],
		['t.two', tensor],
	]);
	const bytes = ggufBytes({ 'aa.name': 'hello', 'aa.list': Int32Array.of(1, 2), 'aa.words': ['x', 'y'] }, two);
	const put = (at: number, value: bigint) => {
		const changed = Buffer.from(bytes);
		changed.writeBigUInt64LE(value, at);
		return changed;
	};
	/** The byte behind a name and the number of the type that follows it. */
	const behind = (name: string) => bytes.indexOf(name) + name.length + 4;
	const renamed = (name: string, other: string) => {
		const changed = Buffer.from(bytes);
		changed.write(other, changed.indexOf(name), 'latin1');
		return changed;
	};
	const aligned = (value: GgufValue) => ggufBytes({ 'general.alignment': value }, new Map());
	const end = 'the file ends in its header';
	test.each<[string, Uint8Array, number | undefined, string]>([
		['too few bytes for counts', bytes.subarray(0, 20), 20, end],
		['a string cut short', bytes.subarray(0, behind('aa.name') + 10), behind('aa.name') + 10, end],
		['words cut short', ggufBytes({ a: ['hello'] }, new Map()).subarray(0, 58), 58, end],
		['something else', Buffer.from('GGML'.repeat(8)), 0, 'does not begin with GGUF'],
		['version 1', ggufBytes({}, new Map(), { version: 1 }), 4, 'the version is 1, expected 2 or 3'],
		['big-endian', Buffer.concat([Buffer.from('GGUF'), Buffer.from([0, 0, 0, 3]), bytes.subarray(8)]), 4, 'big-endian'],
		['2⁶⁴ − 1 tensors', put(8, 2n ** 64n - 1n), 8, 'there are 18446744073709551615 tensors'],
		['more tensors than bytes for them', put(8, BigInt(bytes.length)), 8, 'tensors, expected at most'],
		['2⁴⁰ values', put(16, 2n ** 40n), 16, 'there are 1099511627776 values'],
		['a value too many', put(16, 4n), undefined, 'a tensor has no plain name'],
		['a key of 2⁶³ bytes', put(24, 2n ** 63n), 24, 'bytes of a key'],
		['a key of no bytes', put(24, 0n), 24, 'a key has no plain name'],
		['a string of 2⁴⁰ bytes', put(behind('aa.name'), 2n ** 40n), behind('aa.name'), 'bytes of `aa.name`'],
		['a string over the end', put(behind('aa.name'), 900_000n), bytes.length, end],
		['a list over the end', put(behind('aa.list') + 4, 200_000n), bytes.length, end],
		['words over the end', put(behind('aa.words') + 4, 1_999_998n), undefined, 'there are 8589934593 bytes of `aa.words`'],
		['a list of 2⁴⁰', put(behind('aa.list') + 4, 2n ** 40n), behind('aa.list') + 4, 'entries of `aa.list`'],
		['lists that are too long together', put(behind('aa.words') + 4, 1_999_999n), behind('aa.words') + 4, 'expected at most 1999998'],
		['a list of lists', Buffer.from(bytes).fill(9, behind('aa.list'), behind('aa.list') + 1), undefined, '`aa.list` is of type 9'],
		['a type that there is not', Buffer.from(bytes).fill(13, behind('aa.name') - 4, behind('aa.name') - 3), undefined, 'is of type 13'],
		['a key that is no name', renamed('aa.name', '\0'), 24, 'a key has no plain name'],
		['a key that comes twice', ggufTwice(), undefined, 'the key `aa.x` comes twice'],
		['a tensor that comes twice', renamed('t.two', 't.one'), undefined, 'the tensor `t.one` comes twice'],
		['five dimensions', ggufBytes({}, new Map([['t', { ...tensor, shape: [1, 1, 1, 1, 2] }]])), undefined, 'a tensor has 5 dimensions'],
		['2³² numbers along one', put(behind('t.one'), 2n ** 32n), behind('t.one'), 'numbers along a dimension'],
		['a tensor at 2⁶³', put(behind('t.one') + 12, 2n ** 63n), behind('t.one') + 12, 'bytes before a tensor'],
		['an alignment of 0', aligned({ u32: 0 }), undefined, '`general.alignment` is 0'],
		['an alignment of 48', aligned({ u32: 48 }), undefined, '`general.alignment` is 48'],
		['an alignment of 2⁶³', aligned({ u64: 2n ** 63n }), undefined, '`general.alignment` is 9223372036854775808'],
		['an alignment that is text', aligned('x'), undefined, '`general.alignment` is "x"'],
	])('%s', async (_, contents, offset, message) => {
		const place = await file('x.gguf', contents);
		const before = process.memoryUsage.rss();
		const error = await ggufMetadata(place).then(
			() => undefined,
			(reason: unknown) => reason as FormatError,
		);
		expect(error).toBeInstanceOf(FormatError);
		expect(error!.path).toBe(place);
		expect(error!.message).toContain(message);
		if (offset !== undefined) expect(error!.offset).toBe(offset);
		expect(process.memoryUsage.rss() - before).toBeLessThan(100e6);
	});

	/** The same key twice, which no object has. */
	function ggufTwice(): Buffer {
		const changed = ggufBytes({ 'aa.x': 'x', 'aa.y': 'y' }, new Map());
		changed.write('aa.x', changed.indexOf('aa.y'));
		return changed;
	}
});
