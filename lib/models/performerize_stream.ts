import { ArgumentError, DisposedError } from '../errors.js';
import type { Decoder } from '../generate/decoder.js';
import { type GenerateOptions, type Generation, generate, type Prompt } from '../generate/index.js';
import type { State } from '../layers/state.js';
import { type Resource, scope } from '../tensor.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { PerformerDecoder } from './performerize_decoder.js';
import { tokenRows } from './tokens.js';

/** Tokens that are fed at a time: between them, an abort has its turn. */
const CHUNK = 512;

/** A sequence that a `PerformerDecoder` is fed piece by piece: its memory is that of the state, however long it runs. */
export class PerformerStream implements Decoder, Resource {
	readonly vocabulary: number;
	readonly eos: readonly number[];
	readonly #model: PerformerDecoder;
	readonly #state: State;
	#logits: Float32Array | undefined;
	#busy = false;

	/** Use `model.stream()`. */
	constructor(model: PerformerDecoder) {
		this.vocabulary = model.config.vocabulary;
		this.eos = model.config.eos;
		this.#model = model;
		this.#state = model.initialState();
	}

	/** Tokens fed so far. */
	get position(): number {
		return this.#state.length;
	}

	get bytes(): number {
		return this.#state.disposed ? 0 : this.#state.bytes;
	}

	get disposed(): boolean {
		return this.#state.disposed;
	}

	/** Feed tokens; resolves to the logits `[V]` of what follows the last one. */
	async next(tokens: ArrayLike<number>, options: { readonly signal?: AbortSignal } = {}): Promise<Float32Array> {
		if (this.disposed) throw new DisposedError('this stream has been disposed of');
		if (this.#busy) throw new ArgumentError('PerformerStream.next: another call is still running, expected it to be awaited first');
		if (tokens.length === 0 && this.#logits) return this.#logits;
		const { list } = tokenRows('PerformerStream.next', tokens, this.vocabulary);
		this.#busy = true;
		try {
			for (let at = 0; at < list.length; at += CHUNK) {
				options.signal?.throwIfAborted();
				const part = list.subarray(at, at + CHUNK);
				const { read } = scope(() => ({ read: this.#model.forward(part, this.#state, { last: true }).read() }));
				this.#logits = await read;
			}
			return this.#logits!;
		} finally {
			this.#busy = false;
		}
	}

	/**
	 * Go on from a prompt (and from everything fed before), piece by piece.
	 * @param prompt text, or tokens; '' goes on from where the stream is
	 */
	generate(tokenizer: Tokenizer, prompt: Prompt, options: GenerateOptions = {}): Generation {
		return generate(this, tokenizer, prompt, options);
	}

	dispose(): void {
		this.#state.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}
