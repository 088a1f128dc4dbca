import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { expect, test } from 'vitest';
import { generate } from '../../lib/generate/generate.js';
import { toStream } from '../../lib/generate/stream.js';
import { ByteTokenizer, FakeDecoder, scripted } from './fakes.js';

const tokenizer = new ByteTokenizer();
const V = 258;
const says = (text: string) => new FakeDecoder(V, scripted(Buffer.from(text), 2));
const settle = async () => {
	for (let i = 0; i < 20; i++) await new Promise(setImmediate);
};

test('is the text, as strings of whole characters', async () => {
	const chunks: unknown[] = [];
	for await (const chunk of toStream(generate(says('né€😀, z'), tokenizer, 'p', { temperature: 0 }))) chunks.push(chunk);
	expect(chunks.every((chunk) => typeof chunk === 'string' && !/\p{Surrogate}/u.test(chunk))).toBe(true);
	expect(chunks.join('')).toBe('né€😀, z');
});

test('a text of nothing ends', async () => {
	const chunks: unknown[] = [];
	for await (const chunk of toStream(generate(says(''), tokenizer, 'p', { temperature: 0 }))) chunks.push(chunk);
	expect(chunks).toEqual([]);
});

test('nothing is generated ahead of a slow reader, but for one piece', async () => {
	const decoder = says('abcdefghij');
	const releases: (() => void)[] = [];
	let text = '';
	const slow = new Writable({
		decodeStrings: false,
		highWaterMark: 1,
		write(chunk, _, done) {
			text += chunk;
			releases.push(done);
		},
	});
	const done = pipeline(toStream(generate(decoder, tokenizer, 'p', { temperature: 0 })), slow);
	for (let read = 1; read <= 10; read++) {
		await settle();
		expect(text).toBe('abcdefghij'.slice(0, read));
		expect(decoder.calls.length).toBeGreaterThanOrEqual(read);
		expect(decoder.calls.length).toBeLessThanOrEqual(read + 2); // one in the stream, one asked for when that was taken
		releases.shift()!();
	}
	await done;
	const unread = says('abcdefghij');
	const stream = toStream(generate(unread, tokenizer, 'p', { temperature: 0 }));
	await settle();
	expect(unread.calls).toEqual([]);
	expect(stream.read()).toBe(null);
	await settle();
	expect(unread.calls.length).toBe(1);
	stream.destroy();
});

test('destroying it ends the step under way', async () => {
	const decoder = says('abc');
	const generation = generate(decoder, tokenizer, 'p', { temperature: 0 });
	const stream = toStream(generation);
	let aborted = 0;
	decoder.before = (token, signal) =>
		token !== 97
			? undefined
			: new Promise((_, reject) =>
					signal!.addEventListener('abort', () => {
						aborted++;
						reject(signal!.reason);
					}),
				);
	stream.on('data', () => {});
	await settle();
	const closed = new Promise((resolve) => stream.on('close', resolve));
	stream.on('error', () => expect.fail('destroy() without an error emits none'));
	stream.destroy();
	await closed;
	expect(aborted).toBe(1);
	expect(generation.pending).toEqual([97]);
	expect(await generation.next()).toEqual({ done: true, value: undefined });
});

test('errors and aborts destroy it', async () => {
	const decoder = says('abc');
	const failure = new Error('no memory');
	decoder.before = (token) => {
		if (token === 98) throw failure;
	};
	let text = '';
	const read = async (stream: AsyncIterable<string>) => {
		for await (const chunk of stream) text += chunk;
	};
	await expect(read(toStream(generate(decoder, tokenizer, 'p', { temperature: 0 })))).rejects.toBe(failure);
	expect(text).toBe('ab');

	const controller = new AbortController();
	const reason = new Error('enough');
	const stream = toStream(generate(says('abc'), tokenizer, 'p', { temperature: 0, signal: controller.signal }));
	stream.once('data', () => controller.abort(reason));
	await expect(new Promise((_, reject) => stream.on('error', reject))).rejects.toBe(reason);
});
