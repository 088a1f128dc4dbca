import fs from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import type { Random } from '../../lib/random.js';
import { byteCharacters } from '../../lib/text/token_bytes.js';
import type { Tokenizer } from '../../lib/text/tokenizer.js';
import { published } from '../io/models.js';

/** Text to learn from and to encode: stories where they are, else a few sentences again and again. */
export const stories: string = (() => {
	const file = published && path.join(published, '..', 'text', 'tinystories.txt');
	if (file && fs.existsSync(file)) return fs.readFileSync(file, 'utf8').slice(0, 1_000_000);
	return 'Once upon a time, there was a little girl named Lily. She wanted to play!\n"Hello," she said; it was 12 o\'clock.\n\n'.repeat(
		9_000,
	);
})();

const lines = stories.split('\n').filter((line) => line !== '');

const odd = [
	...['a', 'th', ' ', '   ', '\n', '\r\n', '\t', '\0', '\x1f', '\x7f', '\u0085', '\u00a0', '\u3000', '\ufeff', '\u200b', '\ufffd'],
	...['é', 'e\u0301', 'ß', 'İ', '日本', 'ｱ', '😀', '👩‍👩‍👧', '\u{1d54f}', 'ก็', 'ﷺ', '\u{10ffff}', '\u{e000}'],
	...['1', '234', '²', '½', '٣', 'Ⅷ', "'s", "'LL", "'", '"', '$', '+', '<', '_', '.', '?!', '<0x0A>', '<unk>', '<s>', '</s>', '\n<s>\n'],
];

/** Texts of every kind: sentences of stories, characters of all planes, control characters, long words, nothing. */
export function texts(random: Random, count: number): string[] {
	const pick = <T>(list: readonly T[]): T => list[random.integer(list.length)]!;
	return Array.from({ length: count }, (_, i) => {
		if (i === 0) return '';
		if (i % 100 === 1) return pick(odd).repeat(1 + random.integer(600));
		if (i % 3 === 0) return pick(lines);
		if (i % 3 === 1) return `${pick(lines).slice(0, random.integer(40))}${pick(odd)}${pick(lines).slice(0, random.integer(40))}`;
		return Array.from({ length: random.integer(30) }, () =>
			random.integer(4) > 0 ? pick(odd) : String.fromCodePoint(1 + random.integer(0xd7ff)),
		).join('');
	});
}

/** Tokens that characters are joined to, in the order in which they are learned: the pair that is seen most often becomes the next. */
export function learn(words: readonly (readonly string[])[], count: number): [string, string][] {
	const parts = words.map((word) => [...word]);
	const merges: [string, string][] = [];
	while (merges.length < count) {
		const seen = new Map<string, number>();
		for (const word of parts)
			for (let i = 1; i < word.length; i++) {
				const pair = `${word[i - 1]}\0${word[i]}`;
				seen.set(pair, (seen.get(pair) ?? 0) + 1);
			}
		const best = [...seen].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))[0];
		if (!best || best[1] < 2) break;
		const pair = best[0].split('\0') as [string, string];
		merges.push(pair);
		for (const word of parts)
			for (let i = 1; i < word.length; i++) {
				if (word[i - 1] === pair[0] && word[i] === pair[1]) word.splice(i - 1, 2, pair.join(''));
			}
	}
	return merges;
}

const byteNames = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);

/** A vocabulary as SentencePiece makes it: three special tokens, 256 bytes, what was learned, and characters, with `▁` for a space. */
export function pieces(): { tokens: string[]; scores: number[]; kinds: number[] } {
	const text = lines.slice(0, 60).map((line) => [...`▁${line.replaceAll(' ', '▁')}`]);
	const learned = learn(text, 250).map((pair) => pair.join(''));
	const characters = [...new Set(text.flat())].filter((character) => !learned.includes(character));
	const tokens = [...new Set(['<unk>', '<s>', '</s>', ...byteNames, ...learned, ...characters])];
	return {
		tokens,
		scores: tokens.map((_, i) => (i < 259 ? 0 : 259 - i)),
		kinds: tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1)),
	};
}

/** llama2.c's file of such a vocabulary, as its export writes it. */
export function llama2cFile(tokens: readonly string[], scores: readonly number[]): Buffer {
	const texts = tokens.map((token, i) => Buffer.from(i === 1 || i === 2 ? `\n${token}\n` : token.replaceAll('▁', ' ')));
	const head = Buffer.alloc(4);
	head.writeInt32LE(Math.max(...texts.map((text) => text.length)));
	const parts = texts.flatMap((text, i) => {
		const entry = Buffer.alloc(8);
		entry.writeFloatLE(scores[i]!);
		entry.writeInt32LE(text.length, 4);
		return [entry, text];
	});
	return Buffer.concat([head, ...parts]);
}

/** The tokens and scores in llama2.c's file, with `▁` for a space: read without any of the checks. */
export function llama2cTokens(file: Buffer): { tokens: string[]; scores: number[]; kinds: number[] } {
	const tokens: string[] = [];
	const scores: number[] = [];
	for (let at = 4; at < file.length; ) {
		scores.push(file.readFloatLE(at));
		const end = at + 8 + file.readInt32LE(at + 4);
		tokens.push(file.toString('utf8', at + 8, end).replaceAll(' ', '▁'));
		at = end;
	}
	const exact = tokens.map((token, i) => (i === 1 ? '<s>' : i === 2 ? '</s>' : token));
	return { tokens: exact, scores, kinds: exact.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1)) };
}

/** A tokenizer.json of bytes: 256 of them, what was learned of GPT-2's words, and special tokens behind. */
export function bytesJson(split: readonly object[], specials: readonly { content: string; special: boolean }[] = []) {
	const pattern = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
	const numbers = Array<string[]>(80).fill(['1234', '234', '12', ' 2']).flat(); // stories have none
	const words = [...lines.slice(0, 60).flatMap((line) => line.match(pattern) ?? []), ...numbers];
	const merges = learn(
		words.map((word) => Array.from(Buffer.from(word), (byte) => byteCharacters[byte]!)),
		250,
	);
	const tokens = [...byteCharacters, ...merges.map((pair) => pair.join(''))];
	return {
		version: '1.0',
		added_tokens: specials.map(({ content, special }, i) => ({ id: tokens.length + i, content, special, normalized: false })),
		normalizer: null as unknown,
		pre_tokenizer: {
			type: 'Sequence',
			pretokenizers: [...split, { type: 'ByteLevel', add_prefix_space: false, use_regex: false }],
		} as unknown,
		post_processor: null as unknown,
		decoder: { type: 'ByteLevel' } as unknown,
		model: {
			type: 'BPE',
			vocab: Object.fromEntries(tokens.map((token, i) => [token, i])) as Record<string, unknown>,
			merges: merges as unknown[],
		} as Record<string, unknown>,
	};
}

/** A tokenizer.json like LLaMA's: no words, `▁` for a space, bytes for what is unknown. */
export function spacesJson({ tokens } = pieces()) {
	const merges = tokens.slice(259).flatMap((token) => {
		const known = new Set(tokens);
		const cuts = Array.from({ length: token.length - 1 }, (_, i) => [token.slice(0, i + 1), token.slice(i + 1)]);
		return cuts.filter((cut) => cut.every((part) => known.has(part)));
	});
	return {
		added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true, normalized: false })),
		normalizer: {
			type: 'Sequence',
			normalizers: [
				{ type: 'Prepend', prepend: '▁' },
				{ type: 'Replace', pattern: { String: ' ' }, content: '▁' },
			],
		},
		pre_tokenizer: null,
		post_processor: null,
		decoder: {
			type: 'Sequence',
			decoders: [
				{ type: 'Replace', pattern: { String: '▁' }, content: ' ' },
				{ type: 'ByteFallback' },
				{ type: 'Fuse' },
				{ type: 'Strip', content: ' ', start: 1, stop: 0 },
			],
		},
		model: {
			type: 'BPE',
			vocab: Object.fromEntries(tokens.map((token, i) => [token, i])),
			merges: merges.map((pair) => pair.join(' ')),
			unk_token: '<unk>',
			fuse_unk: true,
			byte_fallback: true,
		},
	};
}

/** Joins, again and again, the neighbours of the best rank, the leftmost of equals: what all byte-pair encoding comes to. */
export function joinAll(parts: readonly string[], rank: (left: string, right: string) => number): string[] {
	const joined = [...parts];
	for (;;) {
		let best = Number.POSITIVE_INFINITY;
		let at = -1;
		for (let i = 1; i < joined.length; i++) {
			const found = rank(joined[i - 1]!, joined[i]!);
			if (found < best) [best, at] = [found, i - 1];
		}
		if (at < 0) return joined;
		joined.splice(at, 2, joined[at]! + joined[at + 1]!);
	}
}

/** What holds for every tokenizer and text. */
export function checkText(tokenizer: Tokenizer, text: string): void {
	const tokens = tokenizer.encode(text);
	const decoded = tokenizer.decode(tokens);
	let first = true;
	const bytes: Uint8Array[] = [];
	for (const token of tokens) {
		bytes.push(tokenizer.bytes(token, first));
		first &&= tokenizer.isSpecial(token);
	}
	expect(Buffer.concat(bytes)).toEqual(Buffer.from(decoded));
	expect(tokens.every((token) => token >= 0 && token < tokenizer.size)).toBe(true);
}
