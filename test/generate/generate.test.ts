import { describe, expect, test } from 'vitest';
import { ArgumentError } from '../../lib/errors.js';
import { generate, generateText } from '../../lib/generate/generate.js';
import { logprob, Sampler } from '../../lib/generate/sampler.js';
import type { GenerateOptions } from '../../lib/generate/sequence.js';
import { Random } from '../../lib/random.js';
import { all, ByteTokenizer, FakeDecoder, hashed, scripted } from './fakes.js';

const tokenizer = new ByteTokenizer();
const V = 258;

/** A decoder that says this text, or these tokens, after a prompt of so many tokens. */
const says = (text: string | readonly number[], prompt = 2) =>
	new FakeDecoder(V, scripted(typeof text === 'string' ? Buffer.from(text) : text, prompt));
const texts = async (decoder: FakeDecoder, options: GenerateOptions = {}, prompt = 'p') =>
	(await all(generate(decoder, tokenizer, prompt, { temperature: 0, ...options }))).map(({ text }) => text);

describe('pieces', () => {
	test('one a token, until the model ends the text', async () => {
		const decoder = says('hi!');
		const generation = generate(decoder, tokenizer, 'p', { temperature: 0 });
		expect(decoder.calls).toEqual([]); // nothing happens until a piece is asked for
		expect(await all(generation)).toEqual([
			{ token: 104, text: 'h', position: 2 },
			{ token: 105, text: 'i', position: 3 },
			{ token: 33, text: '!', position: 4 },
			{ token: 257, text: '', position: 5, reason: 'eos' },
		]);
		expect(decoder.calls).toEqual([[256, 112], [104], [105], [33]]);
		expect(generation.pending).toEqual([257]);
	});

	test('the model may have ends of its own, beside the tokenizer’s', async () => {
		const decoder = Object.assign(says('hi!'), { eos: [33] });
		const found = await all(generate(decoder, tokenizer, 'p', { temperature: 0 }));
		expect(found.at(-1)).toEqual({ token: 33, text: '', position: 4, reason: 'eos' });
		const on = await all(
			generate(Object.assign(says('hi!'), { eos: [33] }), tokenizer, 'p', { temperature: 0, ignoreEos: true, maxTokens: 3 }),
		);
		expect(on.map(({ text }) => text).join('')).toBe('hi!');
	});

	test('are those of the sampler, with the probabilities of the model', async () => {
		const options = { temperature: 0.8, topK: 40, repetitionPenalty: 1.2, seed: 3, ignoreEos: true };
		const prompt = [256, 7, 7, 9];
		const sampler = new Sampler(V, options);
		sampler.prompt(prompt);
		const tokens = [...prompt];
		const expected: object[] = [];
		for (let i = 0; i < 50; i++) {
			const logits = hashed(tokens, V);
			const token = sampler.sample(logits);
			expected.push({ token, position: tokens.length, logprob: logprob(logits, token) });
			tokens.push(token);
		}
		const found = await all(generate(new FakeDecoder(V), tokenizer, prompt, { ...options, maxTokens: 50, logprobs: true }));
		expect(found).toMatchObject(expected);
		expect(found.map(({ reason }) => reason)).toEqual([...Array(49).fill(undefined), 'length']);
		expect(new Set(found.map(({ token }) => token)).size).toBeGreaterThan(20);
	});

	test('characters come whole', async () => {
		expect(await texts(says('aé€😀b'))).toEqual(['a', '', 'é', '', '', '€', '', '', '', '😀', 'b', '']);
		expect(await texts(says('😀'), { maxTokens: 2 })).toEqual(['', '\ufffd']);
		expect(await texts(says([0xf0, 0x9f, 257]))).toEqual(['', '', '\ufffd']);
		expect(await texts(says([0xf0, 0x9f, 0x41, 0xff]))).toEqual(['', '', '\ufffdA', '\ufffd', '']);
	});

	test('a character that the prompt has begun is finished', async () => {
		const [a, b, c, d] = Buffer.from('😀');
		for (const prompt of [
			[256, a!],
			[a!, b!],
			[256, 65, a!, b!, c!],
		]) {
			const rest = [a!, b!, c!, d!].slice(prompt.filter((byte) => byte !== 256 && byte !== 65).length);
			const decoder = says([...rest, 0x42], prompt.length);
			expect((await generateText(decoder, tokenizer, prompt, { temperature: 0 })).text).toBe('😀B');
		}
	});

	test('are together what the tokenizer says of all tokens, whatever bytes the tokens are of', async () => {
		const random = new Random(9);
		const bytes = Buffer.from('añ€😀 z \u0301');
		const pieces = Array.from({ length: 300 }, () => {
			const start = random.integer(bytes.length);
			return [...bytes.subarray(start, start + 1 + random.integer(5))];
		});
		const words = new ByteTokenizer(pieces);
		for (let seed = 0; seed < 30; seed++) {
			const decoder = new FakeDecoder(words.size);
			const found = await all(generate(decoder, words, '', { seed, temperature: 1.5, maxTokens: 60 }));
			expect(found.map(({ text }) => text).join('')).toBe(words.decode(found.map(({ token }) => token)));
			for (const { text } of found) expect(text).not.toMatch(/\p{Surrogate}/u);
		}
	});

	test('a space at the beginning is dropped only where the text begins', async () => {
		const words = new ByteTokenizer([' a']);
		const text = async (prompt: string | number[], start: number) =>
			(await generateText(new FakeDecoder(259, scripted([258, 258], start)), words, prompt, { temperature: 0 })).text;
		expect(await text('', 1)).toBe('a a');
		expect(await text([256, 256], 2)).toBe('a a');
		expect(await text('p', 2)).toBe(' a a');
		expect(await text([97, 256, 256, 256], 4)).toBe(' a a');
		const running = new FakeDecoder(259, scripted([258], 1));
		await running.next([256]);
		expect((await generateText(running, words, [], { temperature: 0 })).text).toBe(' a');
		expect(await text([256, 32], 2)).toBe(' a a'); // the prompt's own space was the one
	});

	test('tokens that the tokenizer does not know have no text', async () => {
		const decoder = new FakeDecoder(400, scripted([65, 399, 66], 2));
		expect(await texts(decoder)).toEqual(['A', '', 'B', '']);
	});
});

describe('the end', () => {
	const end = async (decoder: FakeDecoder, options: GenerateOptions) => {
		const { text, tokens, reason } = await generateText(decoder, tokenizer, 'p', { temperature: 0, ...options });
		return [text, tokens.length, reason];
	};

	test('as many tokens as are allowed', async () => {
		expect(await end(says('hello'), { maxTokens: 2 })).toEqual(['he', 2, 'length']);
		expect(await end(says('hello'), { maxTokens: 1 })).toEqual(['h', 1, 'length']);
		expect(await end(says('hello'), { maxTokens: 6 })).toEqual(['hello', 6, 'eos']);
		expect(await end(says('hello'), { maxTokens: Infinity })).toEqual(['hello', 6, 'eos']);
		expect(await end(new FakeDecoder(V, scripted([], 0, 97)), {})).toEqual(['a'.repeat(65_536), 65_536, 'length']);
	});

	test('stop strings over several tokens', async () => {
		expect(await texts(says('one END two'), { stop: 'END' })).toEqual(['o', 'n', 'e', ' ', '', '', '']);
		expect(await end(says('one END two'), { stop: 'END' })).toEqual(['one ', 7, 'stop']);
		expect(await end(says('one END two'), { stop: ['two', 'e E'] })).toEqual(['on', 5, 'stop']);
		expect(await end(says('one END two'), { stop: ['END'], includeStop: true })).toEqual(['one END', 7, 'stop']);
		expect(await end(says('on€ END'), { stop: '€ ' })).toEqual(['on', 6, 'stop']);
		expect(await texts(says('one EN'), { stop: 'END' })).toEqual(['o', 'n', 'e', ' ', '', '', 'EN']); // released with the end
		expect(await end(says('one EN'), { stop: 'END', maxTokens: 5 })).toEqual(['one E', 5, 'length']);
		expect(await end(says('one END two'), { stop: 'END', maxTokens: 7 })).toEqual(['one ', 7, 'stop']);
		// What a prompt says is not looked at.
		expect(await end(says('ab'), { stop: 'pa' })).toEqual(['ab', 3, 'eos']);
	});

	test('stop tokens', async () => {
		expect(await end(says('hello'), { stopTokens: [108] })).toEqual(['he', 3, 'stop']);
		expect(await end(says('hello'), { stopTokens: new Set([108]), includeStop: true })).toEqual(['hel', 3, 'stop']);
		expect(await end(says('hello'), { stopTokens: [257] })).toEqual(['hello', 6, 'stop']);
		expect(await end(says([104, 257, 105]), { ignoreEos: true, maxTokens: 3 })).toEqual(['hi', 3, 'length']);
		expect(await end(says([104, 257, 105]), { ignoreEos: true, stopTokens: [257] })).toEqual(['h', 2, 'stop']);
		expect(await end(says('hello'), { stopTokens: [108], stop: 'ex' })).toEqual(['he', 3, 'stop']); // "e" was held back
	});
});

describe('prompts', () => {
	test('text begins with what the model was trained with, but only where nothing stands before', async () => {
		const decoder = new FakeDecoder(V);
		const first = await generateText(decoder, tokenizer, 'ab', { maxTokens: 1 });
		await generateText(decoder, tokenizer, 'cd', { maxTokens: 1 });
		await generateText(decoder, tokenizer, 'ef', { maxTokens: 1, special: true });
		expect(decoder.calls).toEqual([
			[256, 97, 98],
			[99, 100],
			[256, 101, 102],
		]);
		expect(first.tokens.length).toBe(1);
		const plain = new FakeDecoder(V);
		await generateText(plain, tokenizer, 'ab', { maxTokens: 1, special: false });
		await generateText(plain, tokenizer, Int32Array.of(1, 2), { maxTokens: 1 });
		expect(plain.calls).toEqual([
			[97, 98],
			[1, 2],
		]);
	});

	test('an empty one goes on from what was fed, and needs something that was', async () => {
		const decoder = new FakeDecoder(V);
		expect(() => generate(decoder, tokenizer, [])).toThrow(new ArgumentError('generate: prompt has no tokens, expected at least one'));
		expect(() => generate(decoder, tokenizer, '', { special: false })).toThrow('prompt has no tokens');
		await decoder.next([256, 5]);
		const { tokens } = await generateText(decoder, tokenizer, [], { maxTokens: 5, temperature: 0 });
		expect(tokens).toEqual((await generateText(new FakeDecoder(V), tokenizer, [256, 5], { maxTokens: 5, temperature: 0 })).tokens);
	});

	test('a decoder that does not count gives pieces without positions', async () => {
		const { vocabulary, next } = new (class extends FakeDecoder {
			override get position(): undefined {
				return undefined;
			}
			override next = FakeDecoder.prototype.next.bind(this);
		})(V);
		const [piece] = await all(generate({ vocabulary, next }, tokenizer, 'a', { maxTokens: 1 }));
		expect(Object.keys(piece!).sort()).toEqual(['reason', 'text', 'token']);
	});
});

test.each<[string, unknown, GenerateOptions, string]>([
	['maxTokens 0', 'a', { maxTokens: 0 }, 'generate: maxTokens is 0, expected an integer from 1 or Infinity'],
	['maxTokens NaN', 'a', { maxTokens: Number.NaN }, 'generate: maxTokens is NaN, expected an integer from 1 or Infinity'],
	['stop', 'a', { stop: ['x', ''] }, 'stop: found an empty string, expected text'],
	['stopTokens', 'a', { stopTokens: [3, 258] }, 'generate: stopTokens[1] is 258, expected an integer in [0, 258)'],
	['sampler', 'a', { topP: 2 }, 'Sampler: topP is 2, expected a number in [0, 1]'],
	['seed', 'a', { seed: 0.5 }, 'Sampler: seed is 0.5, expected an integer in [0, 2⁵³)'],
	['a token', [1, 258], {}, 'generate: prompt[1] is 258, expected an integer in [0, 258)'],
	['a negative token', [-1], {}, 'generate: prompt[0] is -1, expected an integer in [0, 258)'],
	['no prompt', undefined, {}, 'generate: the prompt is undefined, expected text or tokens'],
])('refused at once: %s', (_, prompt, options, message) => {
	const decoder = new FakeDecoder(V);
	expect(() => generate(decoder, tokenizer, prompt as string, options)).toThrow(new ArgumentError(message));
	expect(decoder.calls).toEqual([]);
});

test('a decoder that gives too few logits', async () => {
	const decoder = { vocabulary: 3, next: async () => new Float32Array(2) };
	await expect(all(generate(decoder, tokenizer, [1]))).rejects.toThrow('the decoder gave 2 logits, expected 1 x 3');
});
