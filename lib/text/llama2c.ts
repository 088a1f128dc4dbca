import { FormatError } from '../errors.js';
import { readBytes } from '../io/bytes.js';
import { openFile } from '../io/fields.js';
import { ScoreBpe } from './bpe.js';
import type { Tokenizer } from './tokenizer.js';
import { mostTokens, type Piece, VocabularyTokenizer } from './vocabulary.js';

/** The largest known tokenizer, of 32,000 tokens, takes half a megabyte. */
const longestFile = 64 * 2 ** 20;

/** What llama2.c's export writes for `<unk>`, BOS and EOS, and the first of the 256 tokens for single bytes (run.c, `encode`). */
const unknown = 0;
const bos = 1;
const eos = 2;
const firstByte = 3;

/**
 * A llama2.c tokenizer: little-endian int32 length of the longest token, then for each token float32 score, int32 length, bytes.
 * Encoding is run.c's: a space in front, characters, bytes for characters that are no tokens, then joining by score.
 * @param options.vocabulary V, which only the model's file says. @default as many tokens as there are in the file
 * @param options.spaceInFront encode ` text` for `text`, as SentencePiece does unless it was told otherwise. @default true
 * @throws FormatError with the byte at which the file is not what it should be
 */
export async function readLlama2cTokenizer(
	path: string,
	{ vocabulary, spaceInFront = true }: { readonly vocabulary?: number | undefined; readonly spaceInFront?: boolean } = {},
): Promise<Tokenizer> {
	const { texts, scores } = tokensOf(path, await readWhole(path), vocabulary);
	const names = texts.map((bytes) => bytes.toString('utf8'));
	const pieces = texts.map((bytes, token): Piece => {
		const byte = /^<0x([0-9A-F]{2})>$/.exec(names[token]!);
		return { name: names[token]!, bytes: byte ? Buffer.from(byte[1]!, 'hex') : bytes, special: token <= eos };
	});
	const bpe = new ScoreBpe(names, scores, true);
	/** The token of a byte is its number + 3, unless this vocabulary has no such tokens. */
	const fallback = Array.from({ length: 256 }, (_, byte) => {
		const name = `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
		return names[firstByte + byte] === name ? firstByte + byte : unknown;
	});
	return new VocabularyTokenizer({
		pieces,
		split(text) {
			const tokens: number[] = [];
			const whole = spaceInFront && text !== '' ? ` ${text}` : text;
			bpe.encode(whole, (token, start, end) => {
				if (token >= 0) tokens.push(token);
				else for (const byte of Buffer.from(whole.slice(start, end))) tokens.push(fallback[byte]!);
			});
			return tokens;
		},
		before: [bos],
		behind: [],
		bos,
		eos: [eos],
		spaceInFront,
		chatTemplate: null,
	});
}

async function readWhole(path: string): Promise<Buffer> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	if (size > longestFile) throw new FormatError(path, `the file has ${size} bytes, expected at most ${longestFile}`);
	return readBytes(path, file, 0, size);
}

function tokensOf(path: string, file: Buffer, vocabulary: number | undefined): { texts: Buffer[]; scores: Float64Array } {
	const refuse = (offset: number, message: string) => new FormatError(path, message, { offset });
	const of = vocabulary === undefined ? '' : ` of ${vocabulary}`;
	if (file.length < 4) throw refuse(0, `the file has ${file.length} bytes, expected the length of the longest token in 4`);
	const longest = file.readInt32LE(0);
	if (longest < 1 || longest > file.length) {
		throw refuse(0, `the length of the longest token is ${longest}, expected 1 to the ${file.length} bytes of the file`);
	}
	const texts: Buffer[] = [];
	const scores: number[] = [];
	let at = 4;
	while (vocabulary === undefined ? at < file.length : texts.length < vocabulary) {
		const token = texts.length;
		if (token === mostTokens) throw refuse(at, `there are more than ${mostTokens} tokens, expected no vocabulary as large as that`);
		if (at + 8 > file.length) throw refuse(at, `the file ends in token ${token}${of}, expected a score and a length in 8 bytes`);
		const score = file.readFloatLE(at);
		const length = file.readInt32LE(at + 4);
		if (Number.isNaN(score)) throw refuse(at, `the score of token ${token} is NaN, expected a number`);
		if (length < 0 || length > longest) {
			throw refuse(at + 4, `the length of token ${token} is ${length}, expected 0 to ${longest}, the length of the longest`);
		}
		at += 8;
		if (at + length > file.length) throw refuse(at, `the file ends in token ${token}${of}, expected ${length} bytes`);
		texts.push(file.subarray(at, at + length));
		scores.push(score);
		at += length;
	}
	if (at !== file.length) {
		throw refuse(at, `${file.length - at} bytes follow the ${vocabulary} tokens of the model's vocabulary, expected the end of the file`);
	}
	if (texts.length <= eos) throw refuse(at, `there are ${texts.length} tokens, expected at least <unk>, BOS and EOS`);
	return { texts, scores: Float64Array.from(scores) };
}
