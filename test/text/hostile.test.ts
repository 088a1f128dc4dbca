import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { Random } from '../../lib/random.js';
import { ggufTokenizer } from '../../lib/text/gguf.js';
import { openTokenizer } from '../../lib/text/open_tokenizer.js';
import { gpt2Words, isolate } from '../../lib/text/steps.js';
import type { Tokenizer } from '../../lib/text/tokenizer.js';
import { file } from '../files.js';
import { mutated, mutatedJson } from '../io/mutations.js';
import { bytesJson, llama2cFile, spacesJson } from './vocabularies.js';

describe('a tokenizer.json that is not what it should be is refused, with its path', () => {
	const good = bytesJson([isolate(gpt2Words)], [{ content: '<s>', special: true }]);
	const model = (change: object) => ({ ...good, model: { ...good.model, ...change } });
	const vocab = good.model.vocab as Record<string, unknown>;
	const added = (change: object) => ({ ...good, added_tokens: [{ ...good.added_tokens[0]!, ...change }] });
	const template = (single: unknown, special_tokens: unknown = {}) => ({
		...good,
		post_processor: { type: 'TemplateProcessing', single, special_tokens },
	});
	const sequence = { Sequence: { id: 'A' } };
	test.each<[string, unknown, string]>([
		['no JSON', '{"model": ', 'no JSON'],
		['a list', [], 'expected a JSON object'],
		['no model', {}, '`model` is not there'],
		['another kind of model', model({ type: 'Unigram' }), '`model.type` is "Unigram"'],
		['a vocabulary that is a list', model({ vocab: [] }), '`model.vocab`'],
		['a token that is text', model({ vocab: { ...vocab, zz: '5' } }), '"zz" is "5"'],
		['a token below 0', model({ vocab: { ...vocab, zz: -1 } }), '"zz" is -1'],
		['a token of 2^32', model({ vocab: { ...vocab, zz: 2 ** 32 } }), '"zz" is 4294967296'],
		['two texts for a token', model({ vocab: { ...vocab, zz: 5 } }), 'expected a number that is not'],
		['merges that are none', model({ merges: {} }), '`model.merges`'],
		['a merge of one', model({ merges: ['ab'] }), '`model.merges[0]` is "ab", expected two texts'],
		['a merge of numbers', model({ merges: [[1, 2]] }), 'expected two texts'],
		['a merge of three', model({ merges: ['a b c'] }), 'expected two texts'],
		['a merge of nothing known', model({ merges: [['a', 'zz']] }), '"zz" to be in the vocabulary'],
		['a merge to nothing known', model({ merges: [['~', '~']] }), '"~~" to be in the vocabulary'],
		['an unknown unknown token', model({ unk_token: '<zz>' }), '`model.unk_token` is "<zz>"'],
		['suffixes', model({ end_of_word_suffix: '</w>' }), 'end_of_word_suffix'],
		['an added token without text', added({ content: '' }), 'content'],
		['an added token below 0', added({ id: -1 }), 'id'],
		['an added token that is another', added({ id: 5 }), 'which is 5 already'],
		['an added text that is another', added({ content: 'a' }), 'which is "a" already'],
		['a single word', added({ single_word: true }), 'single_word'],
		[
			'added tokens without end',
			{ ...good, added_tokens: [{ id: 600, content: 'x'.repeat(2 ** 20 + 1) }] },
			'more than 1048576 characters',
		],
		['a normalizer of another kind', { ...good, normalizer: { type: 'Precompiled' } }, '`normalizer.type` is "Precompiled"'],
		['a normalizer that makes texts long', { ...good, normalizer: { type: 'Prepend', prepend: 'x'.repeat(17) } }, 'at most 16'],
		['words of a fixed length of 0', { ...good, pre_tokenizer: { type: 'FixedLength', length: 0 } }, 'FixedLength'],
		['words without a pattern', { ...good, pre_tokenizer: { type: 'Split', behavior: 'Isolated' } }, 'pattern'],
		['a pattern that is none', { ...good, pre_tokenizer: isolate('(') }, 'describes no tokenizer'],
		['a space in front', { ...good, pre_tokenizer: { type: 'ByteLevel' } }, 'add_prefix_space'],
		['steps without end', { ...good, pre_tokenizer: { type: 'Sequence', pretokenizers: Array(17).fill(isolate('a')) } }, 'has 17 elements'],
		['a decoder of another kind', { ...good, decoder: { type: 'CTC' } }, '`decoder.type` is "CTC"'],
		['no decoder', { ...good, decoder: null }, '`decoder` is not there'],
		['special tokens that are not there', template([{ SpecialToken: { id: '<s>' } }, sequence]), 'special_tokens'],
		['special tokens outside', template([{ SpecialToken: { id: 'x' } }, sequence], { x: { ids: [10 ** 6] } }), 'special_tokens'],
		['a template without a text', template([]), 'around one sequence A'],
		['a template with two texts', template([sequence, sequence]), 'around one sequence A'],
	])('%s', async (_, contents, message) => {
		const place = await file('tokenizer.json', typeof contents === 'string' ? contents : JSON.stringify(contents));
		const error = await openTokenizer(place).catch((reason: unknown) => reason as FormatError);
		expect(error).toBeInstanceOf(FormatError);
		expect((error as FormatError).path).toBe(place);
		expect((error as FormatError).message).toContain(message);
	});
});

test('names that mean something to JavaScript mean nothing in a vocabulary', async () => {
	const names = ['__proto__', 'constructor', 'toString', 'valueOf'];
	const json = bytesJson(
		[],
		names.map((content) => ({ content, special: false })),
	);
	// JSON is the only way to a key of this name.
	const text = JSON.stringify(json).replace('"vocab":{', `"vocab":{"__proto__":${json.added_tokens[0]!.id},`);
	const tokenizer = await openTokenizer(await file('tokenizer.json', text));
	expect([...tokenizer.encode('constructor__proto__a')].map((token) => tokenizer.name(token))).toEqual(['constructor', '__proto__', 'a']);
});

/** What a tokenizer that was opened has to do whatever is in its file. */
function use(tokenizer: Tokenizer, what: string): void {
	for (const text of ['', 'Once upon a time, é😀\r\n <s> 12', '\ud800', 'aaaa']) {
		const tokens = tokenizer.encode(text);
		expect(
			tokens.every((token) => token >= 0 && token < tokenizer.size),
			what,
		).toBe(true);
		let first = true;
		const bytes: Uint8Array[] = [];
		for (const token of tokens) {
			bytes.push(tokenizer.bytes(token, first));
			first &&= tokenizer.isSpecial(token);
		}
		expect(Buffer.concat(bytes).toString('utf8'), what).toBe(tokenizer.decode(tokens));
	}
}

const small = {
	tokens: ['<unk>', '<s>', '</s>', ...Array.from({ length: 4 }, (_, i) => `<0x0${i}>`), '▁', 'a', 'O', 'n', '▁a', 'aa', '▁aa', 'On'],
	scores: Array.from({ length: 15 }, (_, i) => -i),
	kinds: [2, 3, 3, 6, 6, 6, 6, ...Array<number>(8).fill(1)],
};
const metadata = JSON.stringify({
	'tokenizer.ggml.model': 'llama',
	'tokenizer.ggml.tokens': small.tokens,
	'tokenizer.ggml.scores': small.scores,
	'tokenizer.ggml.token_type': small.kinds,
	'tokenizer.ggml.bos_token_id': 1,
	'tokenizer.ggml.add_space_prefix': true,
});
const bytes = llama2cFile(small.tokens, small.scores);
const spaces = JSON.stringify(spacesJson(small));

/** Every way of reading, each with one thing wrong in its file. */
async function read(random: Random, turn: number): Promise<{ what: string; tokenizer: Promise<Tokenizer> }> {
	if (turn % 3 === 0) {
		const { bytes: contents, what } = mutated(random, bytes);
		return { what, tokenizer: file('tokenizer.bin', contents).then((place) => openTokenizer(place, { vocabulary: 15 })) };
	}
	const { text, what } = mutatedJson(random, turn % 3 === 1 ? spaces : metadata);
	if (turn % 3 === 1) return { what, tokenizer: file('tokenizer.json', text).then((place) => openTokenizer(place, { vocabulary: 15 })) };
	return { what, tokenizer: (async () => ggufTokenizer('x.gguf', JSON.parse(text), { vocabulary: 15 }))() };
}

test('files with one thing wrong are refused, or read as they are', async () => {
	const random = new Random(9);
	const before = process.memoryUsage.rss();
	let refused = 0;
	for (let turn = 0; turn < 1_800; turn++) {
		const { what, tokenizer } = await read(random, turn);
		try {
			use(await tokenizer, what);
		} catch (error) {
			if (!(error instanceof FormatError)) throw new Error(`${what} (${turn})`, { cause: error });
			refused++;
		}
	}
	expect(refused).toBeGreaterThan(600);
	expect(refused).toBeLessThan(1_700);
	expect(process.memoryUsage.rss() - before).toBeLessThan(500e6);
}, 30_000);
