/** What generating needs of a running sequence. */
export interface Decoder {
	/** V: tokens that it can follow with. */
	readonly vocabulary: number;
	/** Tokens that end a text, beside those of the tokenizer: a model's own files may name others. */
	readonly eos?: readonly number[] | undefined;
	/** How many tokens have been fed in all, where the decoder counts them. */
	readonly position?: number | undefined;
	/**
	 * Feed tokens; resolves to the logits [V] of what follows the last one. The array may be reused by the next call.
	 *
	 * Once something has been fed, `tokens` may be empty: the logits are then what they were. When it rejects, none of the tokens
	 * has been fed, unless `position` says how many were. An aborted signal makes it reject as soon as it can; until it has settled, the
	 * decoder is in use.
	 */
	next(tokens: ArrayLike<number>, options?: { readonly signal?: AbortSignal }): Promise<Float32Array>;
}

/** The same for B sequences side by side. */
export interface BatchDecoder {
	/** B. */
	readonly batch: number;
	/** V. */
	readonly vocabulary: number;
	/** As `Decoder.eos`. */
	readonly eos?: readonly number[] | undefined;
	/** How many tokens have been fed to each sequence in all [B], where the decoder counts them. */
	readonly positions?: ArrayLike<number> | undefined;
	/**
	 * Feed `tokens[b]` to sequence b; resolves to logits [B, V]. `tokens[b]` may be empty: that sequence waits, and its row of logits is
	 * what it was, or anything if nothing has been fed to it. For the rest as `Decoder.next`.
	 */
	next(tokens: readonly ArrayLike<number>[], options?: { readonly signal?: AbortSignal }): Promise<Float32Array>;
}
