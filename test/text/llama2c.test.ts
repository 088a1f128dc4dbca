import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { ArgumentError, FormatError } from '../../lib/errors.js';
import { Random } from '../../lib/random.js';
import { readLlama2cTokenizer } from '../../lib/text/llama2c.js';
import { openTokenizer } from '../../lib/text/open_tokenizer.js';
import { file } from '../files.js';
import { published } from '../io/models.js';
import { checkText, joinAll, llama2cFile, llama2cTokens, pieces, stories, texts } from './vocabularies.js';

const made = pieces();
const files = [llama2cFile(made.tokens, made.scores)];
if (published) files.push(fs.readFileSync(path.join(published, 'stories260K', 'tok512.bin')));

/** run.c's encoding, word for word: the whole list is searched for the best pair each time. */
function naive(bytes: Buffer, text: string): number[] {
	const { tokens, scores } = llama2cTokens(bytes);
	const ids = new Map(tokens.map((token, i) => [token.replaceAll('▁', ' '), i]));
	if (text === '') return [1];
	const known = (part: string) => (ids.has(part) ? [part] : Array.from(Buffer.from(part), (byte) => tokens[byte + 3]!));
	const parts = Array.from(` ${text}`).flatMap(known);
	const joined = joinAll(parts, (left, right) => {
		const id = ids.get(left + right);
		return id === undefined ? Number.POSITIVE_INFINITY : -scores[id]!;
	});
	return [1, ...joined.map((part) => ids.get(part)!)];
}

describe.each(files.map((bytes, i) => [i === 0 ? 'a made vocabulary' : 'stories260K', bytes] as const))('%s', (_, bytes) => {
	const opened = file('tokenizer.bin', bytes).then((place) => readLlama2cTokenizer(place));

	test('tokens are those of a search for the best pair, and every text comes back', async () => {
		const tokenizer = await opened;
		for (const text of texts(new Random(1), 2_000)) {
			const tokens = tokenizer.encode(text);
			if (text.length < 400) expect([...tokens], JSON.stringify(text)).toEqual(naive(bytes, text));
			expect(tokenizer.decode(tokens)).toBe(text);
			checkText(tokenizer, text);
		}
	});

	test('a megabyte takes seconds, and so does a word of a million characters', async () => {
		const tokenizer = await opened;
		for (const text of [stories, 'th'.repeat(500_000), ' '.repeat(1_000_000)]) {
			const start = performance.now();
			const tokens = tokenizer.encode(text);
			expect(performance.now() - start).toBeLessThan(15_000);
			expect(tokenizer.decode(tokens) === text).toBe(true);
		}
	});
});

const tokenizer = file('tokenizer.bin', files[0]!).then((place) => readLlama2cTokenizer(place));

test('BOS is put in front unless it is not wanted, lone surrogates are U+FFFD, only text is taken', async () => {
	const opened = await tokenizer;
	const encode = (text: string, options?: { special: boolean }) => opened.encode(text, options);
	const decode = (tokens: ArrayLike<number>) => opened.decode(tokens);
	expect([...encode('')]).toEqual([1]);
	expect([...encode('', { special: false })]).toEqual([]);
	expect([...encode('a', { special: false })]).toEqual([...encode('a')].slice(1));
	expect(decode(encode('a\ud800b\udc00'))).toBe('a\ufffdb\ufffd');
	expect(decode(encode('\ud83d\ude00'))).toBe('😀');
	expect(() => encode(5 as unknown as string)).toThrow(ArgumentError);
	for (const token of [-1, 0.5, made.tokens.length, Number.NaN]) expect(() => decode([token])).toThrow(ArgumentError);
});

test('special tokens add nothing, unless they are asked for; one space in front is dropped, and only there', async () => {
	const opened = await tokenizer;
	expect([opened.bos, opened.eos, opened.size, opened.chatTemplate]).toEqual([1, [2], made.tokens.length, null]);
	const [space, a] = [made.tokens.indexOf('▁'), made.tokens.indexOf('a')];
	expect(opened.decode([1, space, space, a, space, 2])).toBe(' a ');
	expect(opened.decode([1, space, a, 2], { special: true })).toBe('\n<s>\n a\n</s>\n');
	expect([...opened.bytes(space)]).toEqual([32]);
	expect([...opened.bytes(space, true)]).toEqual([]);
	expect([...opened.bytes(3 + 0xe9)]).toEqual([0xe9]);
	expect(opened.name(3 + 0xe9)).toBe('<0xE9>');
	expect([0, 1, 2, 3].map((token) => opened.isSpecial(token))).toEqual([true, true, true, false]);
	const place = await file('tokenizer.bin', files[0]!);
	const bare = await readLlama2cTokenizer(place, { spaceInFront: false });
	expect(bare.decode(bare.encode(' a'))).toBe(' a');
	expect(bare.encode('a').length).toBe(2);
});

test('a vocabulary without tokens for bytes says that it does not know a character', async () => {
	const small = ['<unk>', '<s>', '</s>', ' ', 'a', 'b', 'ab'];
	const opened = await readLlama2cTokenizer(await file('t.bin', llama2cFile(small, [0, 0, 0, -1, -2, -3, -4])));
	expect([...opened.encode('abé')]).toEqual([1, 3, 6, 0, 0]);
	expect(opened.decode(opened.encode('abé'))).toBe('ab');
});

test('a model finds its tokenizer beside it, or says where it looked', async () => {
	const model = Buffer.alloc(256);
	for (const [i, size] of [64, 172, 5, 8, 4, made.tokens.length, 512].entries()) model.writeInt32LE(size, 4 * i);
	const place = await file('model.bin', model);
	const size = made.tokens.length;
	await expect(openTokenizer(place, { vocabulary: size })).rejects.toThrow(`there is no tok${size}.bin or tokenizer.bin beside it`);
	await expect(openTokenizer(place)).rejects.toThrow(FormatError);
	fs.writeFileSync(path.join(path.dirname(place), 'tokenizer.bin'), llama2cFile(['<unk>', '<s>', '</s>', 'x'], [0, 0, 0, 0]));
	expect((await openTokenizer(place)).size).toBe(4);
	await expect(openTokenizer(place, { vocabulary: size })).rejects.toThrow('the file ends in token 4');
	fs.writeFileSync(path.join(path.dirname(place), `tok${size}.bin`), files[0]!);
	expect((await openTokenizer(place, { vocabulary: size })).size).toBe(size);
	model.write('24ka', 0, 'latin1');
	fs.writeFileSync(place, model);
	expect((await openTokenizer(place, { vocabulary: size })).size).toBe(size);
	await expect(openTokenizer(path.join(path.dirname(place), 'nothing.bin'))).rejects.toThrow(FormatError);
});

describe('a file that is not what it should be is refused, with the byte', () => {
	const good = llama2cFile(['<unk>', '<s>', '</s>', 'ab'], [0, 0, 0, -1]);
	const put = (at: number, value: number, float = false) => {
		const copy = Buffer.from(good);
		if (float) copy.writeFloatLE(value, at);
		else copy.writeInt32LE(value, at);
		return copy;
	};
	const last = good.length - 10; // the entry of `ab`
	test.each<[string, Buffer, number | undefined, number, string]>([
		['nothing', Buffer.alloc(0), undefined, 0, 'has 0 bytes'],
		['a longest token of 2 GB', put(0, 2 ** 31 - 1), undefined, 0, 'longest token is 2147483647'],
		['a longest token below 0', put(0, -1), undefined, 0, 'longest token is -1'],
		['a token longer than the longest', put(last + 4, 8), undefined, last + 4, 'length of token 3 is 8'],
		['a token that runs over the end', put(last + 4, 3), undefined, last + 8, 'the file ends in token 3'],
		['a length below 0', put(last + 4, -5), undefined, last + 4, 'length of token 3 is -5'],
		['a score that is none', put(last, Number.NaN, true), undefined, last, 'score of token 3 is NaN'],
		['half an entry', good.subarray(0, last + 6), undefined, last, 'the file ends in token 3'],
		['fewer tokens than the model has', good, 5, good.length, 'the file ends in token 4 of 5'],
		['more tokens than the model has', good, 3, last, '10 bytes follow the 3 tokens'],
		['two tokens', good.subarray(0, 4 + 8 + 5 + 8 + 5), undefined, 30, 'there are 2 tokens'],
	])('%s', async (_, contents, vocabulary, offset, message) => {
		const place = await file('tokenizer.bin', contents);
		const error = await readLlama2cTokenizer(place, { vocabulary }).catch((reason: unknown) => reason as FormatError);
		expect(error).toBeInstanceOf(FormatError);
		expect(error).toMatchObject({ path: place, offset });
		expect((error as FormatError).message).toContain(message);
	});
});

test('the prompts of the golden runs', async () => {
	const runs = published ? ['stories260K_prompt', 'stories260K_bos'] : [];
	for (const run of runs) {
		const golden = JSON.parse(fs.readFileSync(path.join(published!, 'golden', `${run}.json`), 'utf8'));
		const model = await openTokenizer(path.join(published!, 'stories260K', 'stories260K.bin'), { vocabulary: 512 });
		expect([...model.encode(golden.prompt)]).toEqual(golden.prompt_ids);
		expect(model.decode(golden.prompt_ids)).toBe(golden.prompt);
	}
	expect(runs.length).toBe(published ? 2 : 0);
});
