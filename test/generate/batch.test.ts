import { expect, test } from 'vitest';
import { ArgumentError } from '../../lib/errors.js';
import { generate, generateBatch } from '../../lib/generate/generate.js';
import { all, ByteTokenizer, FakeBatch, FakeDecoder, scripted } from './fakes.js';

const tokenizer = new ByteTokenizer();
const V = 258;

test('each text is what it would be alone, with a seed of its own', async () => {
	const prompts = ['one', 'another one', [256, 200], 'one'];
	const options = { temperature: 0.9, topP: 0.95, repetitionPenalty: 1.1, maxTokens: 30, stop: 'e', seed: 5, logprobs: true };
	const found = await all(generateBatch(new FakeBatch(prompts.map(() => new FakeDecoder(V))), tokenizer, prompts, options));
	for (const [index, prompt] of prompts.entries()) {
		const alone = await all(generate(new FakeDecoder(V), tokenizer, prompt, { ...options, seed: 5 + index }));
		expect(found.filter((piece) => piece.index === index)).toEqual(alone.map((piece) => ({ index, ...piece })));
	}
	const tokens = (index: number) => found.filter((piece) => piece.index === index).map(({ token }) => token);
	expect(tokens(0)).not.toEqual(tokens(3));
});

test('all advance in one step; those that have ended are fed nothing', async () => {
	const rows = ['a', 'bcd', ''].map((text) => new FakeDecoder(V, scripted(Buffer.from(text), 1)));
	const decoder = new FakeBatch([...rows, new FakeDecoder(V)]);
	const pieces = await all(generateBatch(decoder, tokenizer, ['', '', ''], { temperature: 0 }));
	expect(pieces.map(({ index, text, reason }) => [index, text, reason])).toEqual([
		[0, 'a', undefined],
		[1, 'b', undefined],
		[2, '', 'eos'],
		[0, '', 'eos'],
		[1, 'c', undefined],
		[1, 'd', undefined],
		[1, '', 'eos'],
	]);
	expect(decoder.calls).toEqual([
		[[256], [256], [256], []],
		[[97], [98], [], []],
		[[], [99], [], []],
		[[], [100], [], []],
	]);
});

test('refused', () => {
	const decoder = new FakeBatch([new FakeDecoder(V), new FakeDecoder(V)]);
	const refused = (prompts: unknown, message: string) =>
		expect(() => generateBatch(decoder, tokenizer, prompts as string[])).toThrow(new ArgumentError(message));
	refused([], 'generate: found 0 prompts, expected 1 to 2');
	refused(['a', 'b', 'c'], 'generate: found 3 prompts, expected 1 to 2');
	refused('ab', 'generate: found string prompts, expected 1 to 2');
	refused(['a', [1, 900]], 'generate: prompts[1][1] is 900, expected an integer in [0, 258)');
	refused(['a', []], 'generate: prompts[1] has no tokens, expected at least one');
});
