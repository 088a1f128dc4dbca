import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { openPretrained } from '../../lib/io/open_pretrained.js';
import { file } from '../files.js';
import { weightNumbers } from './llama_gguf.js';
import { llama2cBytes, published, randomTensors, smallSizes } from './models.js';

const both = randomTensors(smallSizes);
const tied = randomTensors(smallSizes, { tied: true });

test.each([
	['first export', 0, both],
	['first export', 0, tied],
	['version 1', 1, both],
	['version 1', 1, tied],
])('%s: every weight where it lies', async (_, version, tensors) => {
	const files = await openPretrained(await file('model', llama2cBytes(smallSizes, tensors, { version })));
	expect(files.format).toBe('llama2c');
	expect(files.config).toMatchObject({ ...smallSizes, context: 64, epsilon: 1e-5, bos: 1, slidingWindow: [null, null] });
	expect(files.config.rope).toMatchObject({ theta: 10000, pairs: 'neighbours', magnitude: 1 });
	expect([...files.config.rope.frequencies]).toEqual([1, 0.01]);
	expect(files.weights.size).toBe(2 * 9 + 3);
	for (const [name, { data, shape }] of tensors) {
		expect(files.weights.get(name)).toMatchObject({ type: 'f32', shape, bytes: data.byteLength });
		expect(await weightNumbers(files, name), name).toEqual(new Float32Array(data.buffer));
	}
	if (tensors === tied) expect(files.weights.get('lm_head.weight')).toEqual(files.weights.get('model.embed_tokens.weight'));
});

test('published models: both exports of one have the same weights', async () => {
	const folder = published && path.join(published, 'stories260K');
	const first = await openPretrained(folder ? path.join(folder, 'stories260K.bin') : await file('m', llama2cBytes(smallSizes, tied)));
	const second = await openPretrained(
		folder ? path.join(folder, 'stories260K_export_v1.bin') : await file('m', llama2cBytes(smallSizes, tied, { version: 1 })),
	);
	if (folder) {
		const sizes = { dim: 64, hidden: 172, layers: 5, heads: 8, kvHeads: 4, headDim: 8, vocabulary: 512 };
		expect(first.config).toMatchObject({ ...sizes, context: 512 });
		const other = await openPretrained(path.join(folder, '..', 'babyllama', 'tok105_model5000.bin'));
		expect(other.config).toMatchObject({ dim: 128, hidden: 352, layers: 5, heads: 8, kvHeads: 4, vocabulary: 105, context: 256 });
	}
	expect(second.config).toEqual(first.config);
	expect([...second.weights.keys()]).toEqual([...first.weights.keys()]);
	let different = 0;
	for (const name of first.weights.keys()) {
		const numbers = await weightNumbers(first, name);
		expect(await weightNumbers(second, name), name).toEqual(numbers);
		expect(numbers.every(Number.isFinite), name).toBe(true);
		if (first.weights.get(name)!.offset !== second.weights.get(name)!.offset) different++;
	}
	expect(different).toBeGreaterThan(40 * (folder ? 1 : 0.4));
});

describe('what is not as it should be is refused, with the file', () => {
	const one = (version: number, change: (bytes: Buffer) => unknown) => {
		const bytes = Buffer.from(llama2cBytes(smallSizes, tied, { version }));
		const other = change(bytes);
		return other instanceof Uint8Array ? other : bytes;
	};
	const neither = 'no GGUF and no export of llama2.c';
	test.each<[string, Uint8Array, string]>([
		['nothing', Buffer.alloc(0), 'has 0 bytes'],
		['a header cut short', one(0, (bytes) => bytes.subarray(0, 27)), 'has 27 bytes, expected a header'],
		['text', Buffer.from('{"architectures": ["LlamaForCausalLM"]}'), neither],
		['noughts', Buffer.alloc(64), neither],
		['a width of −1', one(0, (bytes) => bytes.writeInt32LE(-1)), neither],
		['layers without end', one(0, (bytes) => bytes.writeInt32LE(1025, 8)), neither],
		['a vocabulary of −2³¹', one(0, (bytes) => bytes.writeInt32LE(-(2 ** 31), 20)), neither],
		['a last map that is not there', one(0, (bytes) => bytes.writeInt32LE(-32, 20)), 'expected 20828 from the sizes'],
		['heads that do not divide the width', one(0, (bytes) => bytes.writeInt32LE(3, 12)), '`dim` is 16'],
		['heads that cannot be shared', one(0, (bytes) => bytes.writeInt32LE(3, 16)), '4 query heads and 3'],
		['heads of odd length', one(0, (bytes) => [bytes.writeInt32LE(16, 12), bytes.writeInt32LE(16, 16)]), 'a head has 1 numbers'],
		['a byte short', one(0, (bytes) => bytes.subarray(0, -1)), 'from the sizes in its header'],
		['a byte over', one(1, (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])), 'from the sizes in its header'],
		['int8', one(1, (bytes) => bytes.writeInt32LE(2, 4)), 'version 2 (int8, q80)'],
		['a version to come', one(1, (bytes) => bytes.writeInt32LE(3, 4)), 'of version 3, expected 1'],
		['version 1 cut short', one(1, (bytes) => bytes.subarray(0, 200)), 'the header ends here, expected 256 bytes'],
		['a width of 0', one(1, (bytes) => bytes.writeInt32LE(0, 8)), '`dim` is 0'],
		['shared, perhaps', one(1, (bytes) => (bytes[36] = 2)), 'is 2, expected 0 or 1'],
	])('%s', async (_, contents, message) => {
		const place = await file('model.gguf', contents); // the name says nothing
		const error = await openPretrained(place).then(
			() => undefined,
			(reason: unknown) => reason as FormatError,
		);
		expect(error).toBeInstanceOf(FormatError);
		expect(error).toMatchObject({ path: place });
		expect(error!.message).toContain(message);
	});

	test('nothing at all; a device', async () => {
		const place = await file('x', '');
		await fs.rm(place);
		await expect(openPretrained(place)).rejects.toMatchObject({ code: 'ENOENT' });
		await expect(openPretrained('/dev/null')).rejects.toThrow('this is a folder or a device');
	});
});
