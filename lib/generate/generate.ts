import { ArgumentError } from '../errors.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { BatchDecoder, Decoder } from './decoder.js';
import { Generation } from './generation.js';
import { type GenerateOptions, type Piece, type Reason, Sequence } from './sequence.js';

/** Text, or tokens as they are to be fed. */
export type Prompt = string | ArrayLike<number>;

/** A piece of one of several texts. */
export interface BatchPiece extends Piece {
	/** Which prompt it follows. */
	readonly index: number;
}

export interface GeneratedText {
	readonly text: string;
	/** All that were generated, with the one that ended the text. */
	readonly tokens: readonly number[];
	readonly reason: Reason;
}

/**
 * Go on from a prompt, token by token: one piece each, the last with the reason why it is the last. Nothing happens until a piece
 * is asked for. Leaving the loop, an abort or an error leave the decoder usable; `pending` says which tokens it has not been fed
 * (always the last one handed out: see `Generation`).
 *
 * @param prompt text, or tokens in [0, V). May be empty only where the decoder says that something has been fed to it: it then goes
 *   on from there.
 * @example for await (const { text } of generate(session, tokenizer, 'Once upon a time', { seed: 7, maxTokens: 100 })) process.stdout.write(text);
 * @throws ArgumentError at once for options and prompts that make no sense; from the loop `signal.reason`, untouched, when it is aborted,
 *   and the decoder's own errors
 */
export function generate(decoder: Decoder, tokenizer: Tokenizer, prompt: Prompt, options: GenerateOptions = {}): Generation {
	const one: BatchDecoder = {
		batch: 1,
		vocabulary: decoder.vocabulary,
		eos: decoder.eos,
		get positions() {
			return decoder.position === undefined ? undefined : [decoder.position];
		},
		next: (tokens, given) => decoder.next(tokens[0]!, given),
	};
	return new Generation(one, sequences(one, tokenizer, [prompt], options), options.signal, (_, piece) => piece);
}

/** `generate` to the end, as one text. */
export async function generateText(
	decoder: Decoder,
	tokenizer: Tokenizer,
	prompt: Prompt,
	options: GenerateOptions = {},
): Promise<GeneratedText> {
	const tokens: number[] = [];
	const texts: string[] = [];
	let reason: Reason = 'length';
	for await (const piece of generate(decoder, tokenizer, prompt, options)) {
		tokens.push(piece.token);
		texts.push(piece.text);
		reason = piece.reason ?? reason;
	}
	return { text: texts.join(''), tokens, reason };
}

/**
 * Go on from several prompts side by side: each step of the decoder takes all texts on by one token, and those that have ended are fed
 * nothing more. Pieces come in the order of the prompts, step by step. Each text is the one that `generate` would give with
 * the seed `seed + index`. `pendings` has what has not been fed to each.
 *
 * @param prompts at least one, at most `decoder.batch`
 * @throws as `generate`
 */
export function generateBatch(
	decoder: BatchDecoder,
	tokenizer: Tokenizer,
	prompts: readonly Prompt[],
	options: GenerateOptions = {},
): Generation<BatchPiece> {
	const { batch } = decoder;
	if (!Array.isArray(prompts) || prompts.length < 1 || prompts.length > batch) {
		throw new ArgumentError(`generate: found ${Array.isArray(prompts) ? prompts.length : typeof prompts} prompts, expected 1 to ${batch}`);
	}
	const present = (index: number, piece: Piece): BatchPiece => ({ index, ...piece });
	return new Generation(decoder, sequences(decoder, tokenizer, prompts, options), options.signal, present);
}

function sequences(decoder: BatchDecoder, tokenizer: Tokenizer, prompts: readonly Prompt[], options: GenerateOptions): Sequence[] {
	const { vocabulary } = decoder;
	const { maxTokens = Infinity, stopTokens = [] } = options;
	if (maxTokens !== Infinity && !(Number.isSafeInteger(maxTokens) && maxTokens >= 1)) {
		throw new ArgumentError(`generate: maxTokens is ${maxTokens}, expected an integer from 1 or Infinity`);
	}
	const ends = [...stopTokens];
	inVocabulary('stopTokens', ends, vocabulary);
	const scratch = new Float64Array(vocabulary);
	return prompts.map((prompt, index) => {
		const before = decoder.positions?.[index] ?? 0;
		if (typeof prompt?.length !== 'number') throw new ArgumentError(`generate: the prompt is ${prompt}, expected text or tokens`);
		const tokens = typeof prompt === 'string' ? tokenizer.encode(prompt, { special: options.special ?? before === 0 }) : prompt;
		const name = prompts.length === 1 ? 'prompt' : `prompts[${index}]`;
		inVocabulary(name, tokens, vocabulary);
		if (tokens.length === 0 && before === 0) throw new ArgumentError(`generate: ${name} has no tokens, expected at least one`);
		const own = { ...options, stopTokens: ends, seed: (options.seed ?? 0) + index };
		return new Sequence(tokenizer, tokens, before === 0, own, scratch, [...tokenizer.eos, ...(decoder.eos ?? [])]);
	});
}

function inVocabulary(name: string, tokens: ArrayLike<number>, vocabulary: number): void {
	for (let i = 0; i < tokens.length; i++) {
		const token = tokens[i]!;
		if (!Number.isInteger(token) || token < 0 || token >= vocabulary) {
			throw new ArgumentError(`generate: ${name}[${i}] is ${token}, expected an integer in [0, ${vocabulary})`);
		}
	}
}
