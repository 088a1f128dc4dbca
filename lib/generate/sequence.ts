import type { Tokenizer } from '../text/tokenizer.js';
import { Utf8Stream } from '../text/utf8.js';
import { logprob, Sampler, type SamplerOptions } from './sampler.js';
import { Stop } from './stop.js';

/** Why a text ended: a stop string or stop token, as many tokens as were allowed, or the model's own end. */
export type Reason = 'stop' | 'length' | 'eos';

/** What one token adds to a text. */
export interface Piece {
	readonly token: number;
	/**
	 * The text that is certain now, of whole characters. May be empty: a character may be spread over several tokens, and what may
	 * be the beginning of a stop string is held back. All pieces together are the text.
	 */
	readonly text: string;
	/** Where the token stands in its sequence, from 0: only where the decoder counts. */
	readonly position?: number;
	/** Natural logarithm of the probability that the model gave the token, if asked for. */
	readonly logprob?: number;
	/** In the last piece only. */
	readonly reason?: Reason;
}

export interface GenerateOptions extends SamplerOptions {
	/**
	 * The most tokens to generate, an integer from 1 or Infinity. By default it goes on until the model ends the text, but not without
	 * a bound. @default 65536
	 */
	readonly maxTokens?: number | undefined;
	/** Text that ends the text, wherever it is cut into tokens. It is not part of the text (see `includeStop`). @default none */
	readonly stop?: string | readonly string[] | undefined;
	/** Tokens that end the text as well as those of the tokenizer and the model, with reason `stop`. @default none */
	readonly stopTokens?: Iterable<number> | undefined;
	/** Whether the stop string, or the text of the stop token, is part of the text. @default false */
	readonly includeStop?: boolean | undefined;
	/** Go on after the model's own end. (To keep them from being chosen at all, ban them with `logitBias`.) @default false */
	readonly ignoreEos?: boolean | undefined;
	/** Give each piece its `logprob`, of the model's logits as they are: without penalties, filters or temperature. @default false */
	readonly logprobs?: boolean | undefined;
	/**
	 * Whether the tokenizer puts before a prompt that is text what the model was trained with (BOS).
	 * @default unless the decoder says that tokens have been fed to it before
	 */
	readonly special?: boolean | undefined;
	readonly signal?: AbortSignal | undefined;
}

/** One text that is being generated: from logits to tokens to text, and when it ends. Knows nothing of decoders. */
export class Sequence {
	/** Tokens that belong to the sequence and have not been fed. */
	pending: ArrayLike<number>;
	reason: Reason | undefined;
	readonly #tokenizer: Tokenizer;
	readonly #options: GenerateOptions;
	readonly #most: number;
	readonly #sampler: Sampler;
	readonly #ends = new Map<number, Reason>();
	readonly #characters = new Utf8Stream();
	readonly #stop: Stop;
	/** Whether the next token that is not special begins the text. */
	#first: boolean;
	#count = 0;

	/**
	 * @param prompt checked already
	 * @param first whether nothing stands before the prompt
	 * @param scratch [V] that sequences may share
	 * @param eos tokens that end a text
	 */
	constructor(
		tokenizer: Tokenizer,
		prompt: ArrayLike<number>,
		first: boolean,
		options: GenerateOptions,
		scratch: Float64Array,
		eos: readonly number[] = tokenizer.eos,
	) {
		this.pending = prompt;
		this.#tokenizer = tokenizer;
		this.#options = options;
		this.#most = options.maxTokens ?? 65_536;
		this.#sampler = new Sampler(scratch.length, options, scratch);
		this.#sampler.prompt(prompt);
		if (!options.ignoreEos) for (const token of eos) this.#ends.set(token, 'eos');
		for (const token of options.stopTokens ?? []) this.#ends.set(token, 'stop');
		const { stop = [], includeStop } = options;
		this.#stop = new Stop(typeof stop === 'string' ? [stop] : stop, { include: includeStop });
		this.#first = first;
		for (let i = 0; i < prompt.length && this.#first; i++) this.#bytes(prompt[i]!);
		// The prompt may end in the middle of a character. What the decoder returns here belongs to the prompt; what it keeps are
		// bytes (at most 3, so at most 3 tokens) that wait for the rest of their character.
		for (let i = Math.max(0, prompt.length - 3); i < prompt.length; i++) this.#characters.push(this.#bytes(prompt[i]!));
	}

	/** Choose the token after these logits [V]. It is pending from now on. */
	take(logits: Float32Array, position: number | undefined): Piece {
		const token = this.#sampler.sample(logits);
		this.pending = [token];
		this.#count++;
		const end = this.#ends.get(token);
		let text = '';
		if (end === undefined || (end === 'stop' && this.#options.includeStop)) {
			text += this.#stop.push(this.#characters.push(this.#bytes(token)));
		}
		this.reason = this.#stop.found === null ? end : 'stop';
		if (this.reason === undefined && this.#count >= this.#most) this.reason = 'length';
		if (this.reason !== undefined) text += this.#stop.push(this.#characters.end()) + this.#stop.end();
		return {
			token,
			text,
			...(position !== undefined && { position }),
			...(this.#options.logprobs && { logprob: logprob(logits, token) }),
			...(this.reason !== undefined && { reason: this.reason }),
		};
	}

	/** The bytes of a token in its place. A model may have more tokens than its tokenizer, to fill up a matrix: they have no text. */
	#bytes(token: number): Uint8Array {
		if (token >= this.#tokenizer.size) return new Uint8Array(0);
		const bytes = this.#tokenizer.bytes(token, this.#first);
		this.#first &&= this.#tokenizer.isSpecial(token);
		return bytes;
	}
}
