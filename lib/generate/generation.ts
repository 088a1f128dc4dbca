import { ArgumentError } from '../errors.js';
import type { BatchDecoder } from './decoder.js';
import type { Piece, Sequence } from './sequence.js';

/**
 * Texts in the making: asked for a piece, it feeds what is pending, chooses a token, and hands it out *before* that is fed.
 *
 * So at every moment a sequence consists of what it had, the prompt and the tokens handed out, and all of them have been fed except
 * those in `pending`: before the first piece the prompt, then the last token handed out; after an abort or an error as many as the decoder
 * did not take. That holds however it ends, and to go on, begin the next prompt with what is pending:
 * `generate(decoder, tokenizer, [...generation.pending, ...more])`.
 *
 * An abort is looked for before tokens are fed and handed on to the decoder; the step that is under way is always waited for, so that the
 * decoder is free when the error arrives. Nothing is chosen after an abort.
 */
export class Generation<P = Piece> implements AsyncGenerator<P, void, undefined> {
	readonly #decoder: BatchDecoder;
	readonly #sequences: readonly Sequence[];
	readonly #signal: AbortSignal | undefined;
	readonly #present: (index: number, piece: Piece) => P;
	readonly #pieces: AsyncGenerator<P, void, undefined>;
	/** Ends the step under way: the caller's signal fired, or the loop was left. */
	readonly #step = new AbortController();
	#left = false;

	/** @param sequences at most as many as the decoder has: the others wait */
	constructor(
		decoder: BatchDecoder,
		sequences: readonly Sequence[],
		signal: AbortSignal | undefined,
		present: (index: number, piece: Piece) => P,
	) {
		this.#decoder = decoder;
		this.#sequences = sequences;
		this.#signal = signal;
		this.#present = present;
		this.#pieces = this.#run();
	}

	/** The tokens of each sequence that belong to it and have not been fed. Of one sequence: `pending`. */
	get pendings(): readonly (readonly number[])[] {
		return this.#sequences.map(({ pending }) => Array.from(pending));
	}

	/** The tokens that belong to the (first) sequence and have not been fed. */
	get pending(): readonly number[] {
		return Array.from(this.#sequences[0]!.pending);
	}

	next(): Promise<IteratorResult<P, void>> {
		return this.#pieces.next();
	}

	/** Leave: a step that is under way is ended and waited for. */
	return(): Promise<IteratorResult<P, void>> {
		this.#leave();
		return this.#pieces.return();
	}

	throw(error: unknown): Promise<IteratorResult<P, void>> {
		this.#leave();
		return this.#pieces.throw(error);
	}

	[Symbol.asyncIterator](): this {
		return this;
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.return();
	}

	#leave(): void {
		this.#left = true;
		this.#step.abort();
	}

	async *#run(): AsyncGenerator<P, void, undefined> {
		const V = this.#decoder.vocabulary;
		for (;;) {
			const running = this.#sequences.map(({ reason }) => reason === undefined);
			if (!running.includes(true)) return;
			const logits = await this.#feed(running);
			if (logits === undefined) return;
			for (const [b, sequence] of this.#sequences.entries()) {
				if (!running[b]) continue;
				this.#signal?.throwIfAborted();
				yield this.#present(b, sequence.take(logits.subarray(b * V, (b + 1) * V), this.#decoder.positions?.[b]));
			}
		}
	}

	/** Feed what is pending; undefined if the loop was left meanwhile. */
	async #feed(running: readonly boolean[]): Promise<Float32Array | undefined> {
		const { batch, vocabulary } = this.#decoder;
		const tokens = Array.from({ length: batch }, (_, b) => (running[b] ? this.#sequences[b]!.pending : []));
		const before = Array.from(this.#decoder.positions ?? []);
		const signal = this.#signal;
		const forward = () => this.#step.abort(signal?.reason);
		signal?.throwIfAborted();
		signal?.addEventListener('abort', forward, { once: true });
		let logits: Float32Array;
		try {
			logits = await this.#decoder.next(tokens, { signal: this.#step.signal });
			this.#fed((b) => tokens[b]!.length);
		} catch (error) {
			const { positions } = this.#decoder;
			this.#fed((b) => (positions ? Math.max(0, positions[b]! - before[b]!) : 0));
			if (this.#left) return undefined;
			throw signal?.aborted ? signal.reason : error;
		} finally {
			signal?.removeEventListener('abort', forward);
		}
		if (this.#left) return undefined;
		if (logits.length !== batch * vocabulary) {
			throw new ArgumentError(`generate: the decoder gave ${logits.length} logits, expected ${batch} x ${vocabulary}`);
		}
		return logits;
	}

	#fed(count: (b: number) => number): void {
		for (const [b, sequence] of this.#sequences.entries()) {
			sequence.pending = Array.prototype.slice.call(sequence.pending, count(b));
		}
	}
}
