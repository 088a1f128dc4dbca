import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { Random } from '../../lib/random.js';
import { ggufTokenizer } from '../../lib/text/gguf.js';
import { openTokenizer } from '../../lib/text/open_tokenizer.js';
import { gpt2Words, isolate } from '../../lib/text/steps.js';
import { file } from '../files.js';
import { published } from '../io/models.js';
import { bytesJson, checkText, llama2cFile, llama2cTokens, pieces, spacesJson, stories, texts } from './vocabularies.js';

const scored = ({ tokens, scores, kinds }: { tokens: string[]; scores: number[]; kinds: number[] }) => ({
	'tokenizer.ggml.model': 'llama',
	'tokenizer.ggml.tokens': tokens,
	'tokenizer.ggml.scores': scores,
	'tokenizer.ggml.token_type': kinds,
	'tokenizer.ggml.bos_token_id': 1,
	'tokenizer.ggml.eos_token_id': 2,
});

const vocabularies: [string, Buffer][] = [['a made vocabulary', llama2cFile(pieces().tokens, pieces().scores)]];
if (published) vocabularies.push(['tok512', fs.readFileSync(path.join(published, 'stories260K', 'tok512.bin'))]);

/** Texts that all files take alike: `▁` is a space to some and a character to others, and special tokens are spelled in some only. */
const plain = (text: string) => !/▁|<unk>|<\/?s>/.test(text);

describe.each(vocabularies)('%s, by scores', (_, bytes) => {
	const { tokens, scores, kinds } = llama2cTokens(bytes);
	tokens.splice(1, 2, '<s>', '</s>');
	const tokenizer = ggufTokenizer('x.gguf', scored({ tokens, scores, kinds }));

	test('tokens and texts are those of the llama2.c file and of tokenizer.json', async () => {
		const llama2c = await openTokenizer(await file('tokenizer.bin', bytes));
		const json = await openTokenizer(await file('tokenizer.json', JSON.stringify(spacesJson({ tokens, scores, kinds }))));
		let compared = 0;
		for (const text of texts(new Random(5), 3_000)) {
			const ids = [...tokenizer.encode(text)];
			checkText(tokenizer, text);
			if (!plain(text)) continue;
			compared++;
			expect(ids, JSON.stringify(text)).toEqual([...llama2c.encode(text)]);
			expect(ids.slice(1), JSON.stringify(text)).toEqual([...json.encode(text)]);
			expect(tokenizer.decode(ids)).toBe(text);
			expect(json.decode(ids)).toBe(text);
		}
		expect(compared).toBeGreaterThan(2_000);
	});

	test('a megabyte takes seconds', () => {
		const start = performance.now();
		expect(tokenizer.decode(tokenizer.encode(stories)) === stories).toBe(true);
		expect(performance.now() - start).toBeLessThan(15_000);
	});
});

test('special and user-defined tokens are found in the text, the longest first; each section gets its space', () => {
	const tokens = ['<unk>', '<s>', '</s>', '▁', 'a', 'b', '<s>>', '[x]', '<0x63>'];
	const metadata = scored({ tokens, scores: tokens.map((_, i) => -i), kinds: [2, 3, 3, 1, 1, 1, 3, 4, 6] });
	const tokenizer = ggufTokenizer('x.gguf', metadata);
	expect([...tokenizer.encode('a<s>b')]).toEqual([1, 3, 4, 1, 3, 5]);
	expect([...tokenizer.encode('<s>>[x]')]).toEqual([1, 6, 7]);
	expect([...tokenizer.encode('c', { special: false })]).toEqual([3, 8]);
	expect([...tokenizer.encode('d')]).toEqual([1, 3, 0]);
	expect(tokenizer.decode([1, 3, 4, 7, 3, 8, 0])).toBe('a[x] c');
	expect([tokenizer.bos, tokenizer.eos, tokenizer.chatTemplate]).toEqual([1, [2], null]);
	const known = { ...metadata, 'tokenizer.ggml.tokens': [...tokens.slice(0, 5), '\ufffd', ...tokens.slice(6)] };
	expect([...ggufTokenizer('x.gguf', known).encode('a\udc00')]).toEqual([1, 3, 4, 5]); // a lone surrogate is U+FFFD before all else
	const bare = ggufTokenizer('x.gguf', {
		...metadata,
		'tokenizer.ggml.add_space_prefix': false,
		'tokenizer.ggml.add_bos_token': false,
		'tokenizer.ggml.add_eos_token': true,
		'tokenizer.ggml.eot_token_id': 6,
		'tokenizer.chat_template': 'x',
	});
	expect([...bare.encode('a b')]).toEqual([4, 3, 5, 2]);
	expect(bare.decode([3, 4])).toBe(' a');
	expect([bare.eos, bare.chatTemplate]).toEqual([[2, 6], 'x']);
	expect(ggufTokenizer('x.gguf', metadata, { vocabulary: 12 }).size).toBe(12);
});

test('merges learned by Hugging Face, as scores', async () => {
	if (!published) return expect(published).toBe(null);
	const place = path.join(published, 'tinystories656k', 'tokenizer.json');
	const json = JSON.parse(fs.readFileSync(place, 'utf8'));
	const original = await openTokenizer(place);
	const merges = (json.model.merges as string[]).map((pair) => pair.replace(' ', ''));
	const tokens = inOrder(json.model.vocab);
	const scores = tokens.map((token) => -(merges.includes(token) ? merges.indexOf(token) : merges.length));
	const tokenizer = ggufTokenizer('x.gguf', scored({ tokens, scores, kinds: tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : 1)) }));
	for (const text of stories.split('\n').slice(0, 3_000)) expect([...tokenizer.encode(text)]).toEqual([...original.encode(text)]);
});

/** How Hugging Face's files of the models write the words that `pre` names. */
const letters = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
const rest = '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const kinds: [string, object[]][] = [
	['gpt-2', [isolate(gpt2Words)]],
	['smollm', [{ type: 'Digits', individual_digits: true }, isolate(gpt2Words)]],
	['llama-bpe', [isolate(`${letters}\\p{N}{1,3}${rest}`)]],
	['qwen2', [isolate(`${letters}\\p{N}${rest}`)]],
	['default', [isolate('[\\p{P}\\$\\+<=>\\^~\\|]+'), isolate(gpt2Words), isolate('\\p{N}+'), isolate('[0-9][0-9][0-9]')]],
];
const specials = [
	{ content: '<s>', special: true },
	{ content: '[x]', special: false },
];

/** The tokens of a tokenizer.json by number: an object has those that are digits first. */
const inOrder = (vocabulary: unknown) =>
	Object.entries(vocabulary as Record<string, number>)
		.sort(([, a], [, b]) => a - b)
		.map(([text]) => text);

/** The metadata that says what a tokenizer.json of bytes says. */
function bytesMetadata(json: ReturnType<typeof bytesJson>): Record<string, unknown> {
	const tokens = [...inOrder(json.model.vocab), ...json.added_tokens.map(({ content }) => content)];
	return {
		'tokenizer.ggml.model': 'gpt2',
		'tokenizer.ggml.tokens': tokens,
		'tokenizer.ggml.token_type': tokens.map((token) => (token === '<s>' ? 3 : token === '[x]' ? 4 : 1)),
		'tokenizer.ggml.merges': (json.model.merges as [string, string][]).map((pair) => pair.join(' ')),
		'tokenizer.ggml.bos_token_id': tokens.indexOf('<s>'),
	};
}

test.each(kinds)('words of kind %s: tokens and texts are those of tokenizer.json', async (pre, split) => {
	const json = bytesJson(split, specials);
	const metadata = bytesMetadata(json);
	json.model.ignore_merges = pre === 'llama-bpe';
	if (pre === 'qwen2') json.normalizer = { type: 'NFC' };
	const original = await openTokenizer(await file('tokenizer.json', JSON.stringify(json)));
	const tokenizer = ggufTokenizer('x.gguf', { ...metadata, 'tokenizer.ggml.pre': pre });
	for (const text of texts(new Random(6), 1_000)) {
		const ids = tokenizer.encode(text, { special: false });
		expect([...ids], JSON.stringify(text)).toEqual([...original.encode(text)]);
		expect(tokenizer.decode(ids, { special: true })).toBe(pre === 'qwen2' ? text.normalize('NFC') : text);
		checkText(tokenizer, text);
	}
	const bos = metadata['tokenizer.ggml.bos_token_id'];
	expect(tokenizer.encode('')).toEqual(Int32Array.from(pre === 'llama-bpe' ? [bos as number] : []));
	if (pre === 'default') expect([...ggufTokenizer('x.gguf', metadata).encode('a1234!')]).toEqual([...tokenizer.encode('a1234!')]);
});

test('a word that is a token is that token to LLaMA 3, whether merges lead to it or not', () => {
	const metadata = bytesMetadata(bytesJson([]));
	const tokens = [...(metadata['tokenizer.ggml.tokens'] as string[]), 'zqz'];
	const read = (pre: string) =>
		ggufTokenizer('x.gguf', {
			...metadata,
			'tokenizer.ggml.tokens': tokens,
			'tokenizer.ggml.token_type': undefined,
			'tokenizer.ggml.bos_token_id': undefined,
			'tokenizer.ggml.pre': pre,
		});
	const [z, q] = [tokens.indexOf('z'), tokens.indexOf('q')];
	expect([...read('llama-bpe').encode('zqz!zqzz')]).toEqual([tokens.length - 1, tokens.indexOf('!'), z, q, z, z]);
	expect([...read('qwen2').encode('zqz')]).toEqual([z, q, z]);
});

test('what cannot be read is refused by name', () => {
	const good = scored(pieces());
	const words = bytesMetadata(bytesJson([], specials));
	const cases: [object, object, string][] = [
		[good, { 'tokenizer.ggml.model': 'bert' }, '`tokenizer.ggml.model` is "bert", expected llama or gpt2'],
		[good, { 'tokenizer.ggml.tokens': [] }, 'a list of texts'],
		[good, { 'tokenizer.ggml.tokens': ['a', 5] }, '`tokenizer.ggml.tokens[1]` is 5'],
		[good, { 'tokenizer.ggml.scores': [1] }, 'tokenizer.ggml.scores'],
		[good, { 'tokenizer.ggml.scores': good['tokenizer.ggml.scores'].map(() => Number.NaN) }, 'numbers'],
		[good, { 'tokenizer.ggml.token_type': 'x' }, 'tokenizer.ggml.token_type'],
		[good, { 'tokenizer.ggml.token_type': good['tokenizer.ggml.token_type'].map(() => 7) }, 'integers from 0 to 6'],
		[good, { 'tokenizer.ggml.bos_token_id': 100_000 }, '`tokenizer.ggml.bos_token_id` is 100000'],
		[good, { 'tokenizer.ggml.eos_token_id': -1 }, 'tokenizer.ggml.eos_token_id'],
		[good, { 'tokenizer.ggml.add_bos_token': 'yes' }, 'true or false'],
		[good, { 'tokenizer.chat_template': 5 }, 'tokenizer.chat_template'],
		[words, { 'tokenizer.ggml.pre': 'tekken' }, '`tokenizer.ggml.pre` is "tekken", expected default, gpt-2'],
		[words, { 'tokenizer.ggml.pre': '__proto__' }, 'expected default, gpt-2'],
		[words, { 'tokenizer.ggml.merges': undefined }, '`tokenizer.ggml.merges` is not there'],
		[words, { 'tokenizer.ggml.merges': ['a nothing'] }, '"nothing" to be in the vocabulary'],
		[words, { 'tokenizer.ggml.merges': ['a'] }, 'two texts'],
		[
			words,
			{ 'tokenizer.ggml.tokens': ['a', 'a'], 'tokenizer.ggml.token_type': undefined, 'tokenizer.ggml.bos_token_id': undefined },
			'tokens 0 and 1 have the same text',
		],
	];
	for (const [metadata, change, message] of cases) {
		const read = () => ggufTokenizer('x.gguf', { ...metadata, ...change });
		expect(read, message).toThrow(FormatError);
		expect(read).toThrow(message);
	}
	expect(() => ggufTokenizer('x.gguf', good, { vocabulary: 100 })).toThrow('expected at most 100');
	const own = ['<unk>', '<s>', '</s>', '__proto__', 'constructor'];
	const odd = ggufTokenizer('x.gguf', scored({ tokens: own, scores: own.map(() => 0), kinds: [2, 3, 3, 4, 4] }));
	expect([...odd.encode('__proto__constructor')]).toEqual([1, 3, 4]);
});

test('a GGUF by its path alone is refused', async () => {
	const place = await file('model.gguf', Buffer.from('GGUF\x03\0\0\0'));
	await expect(openTokenizer(place)).rejects.toThrow('a GGUF without the metadata');
	expect((await openTokenizer(place, { metadata: scored(pieces()) })).bos).toBe(1);
});
