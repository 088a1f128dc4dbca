import { expect, test } from 'vitest';
import { Random } from '../../lib/random.js';
import { Utf8Stream } from '../../lib/text/utf8.js';
import { texts } from './vocabularies.js';

/** The pieces that bytes become when they are cut at random. */
function streamed(random: Random, bytes: Uint8Array): string[] {
	const stream = new Utf8Stream();
	const parts: string[] = [];
	for (let at = 0; at < bytes.length; ) {
		const end = at + random.integer(4);
		parts.push(stream.push(bytes.subarray(at, end)));
		at = end;
	}
	return [...parts, stream.end()];
}

test('pieces are whole characters and together the text', () => {
	const random = new Random(7);
	for (const text of texts(random, 2_000)) {
		const parts = streamed(random, Buffer.from(text));
		expect(parts.join('')).toBe(text);
		for (const part of parts) expect(part).not.toMatch(/\p{Surrogate}/u);
		if (!text.includes('\ufffd')) expect(parts.join('')).not.toContain('\ufffd');
	}
});

test('bytes that are no UTF-8 become what they become all at once', () => {
	const random = new Random(8);
	const likely = [0x41, 0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xe2, 0x82, 0xac, 0xed, 0xa0, 0xef, 0xbb, 0xf0, 0x9f, 0x98, 0xf4, 0x90, 0xff];
	for (let i = 0; i < 5_000; i++) {
		const bytes = Uint8Array.from({ length: random.integer(12) }, () => likely[random.integer(likely.length)]!);
		expect(streamed(random, bytes).join(''), Buffer.from(bytes).toString('hex')).toBe(Buffer.from(bytes).toString('utf8'));
	}
});

test('a character is given as soon as it is whole; what is left comes at the end, and the stream can be used again', () => {
	const stream = new Utf8Stream();
	expect([0xe2, 0x82, 0xac, 0x61, 0xe2].map((byte) => stream.push(Uint8Array.of(byte)))).toEqual(['', '', '€', 'a', '']);
	expect(stream.end()).toBe('\ufffd');
	expect(stream.push(Buffer.from('\ufeffb'))).toBe('\ufeffb');
	expect(stream.end()).toBe('');
});
