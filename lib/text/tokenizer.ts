/** Text to tokens and back, whichever file the vocabulary came from (hugging_face.ts, gguf.ts, llama2c.ts beside this). */
export interface Tokenizer {
	/** V: how many tokens there are. */
	readonly size: number;
	readonly bos: number | null;
	readonly eos: readonly number[];
	/** How messages become a text for this model, as its files say (`renderChat`): a Jinja template. null: they say nothing. */
	readonly chatTemplate: string | null;
	/**
	 * @param options.special put the tokens before and behind that the model was trained with (BOS). @default true
	 * Text that spells a special token becomes that token where the vocabulary says so. Lone surrogates are read as U+FFFD.
	 * @throws ArgumentError `text` is no text
	 */
	encode(text: string, options?: { readonly special?: boolean }): Int32Array;
	/**
	 * @param options.special leave special tokens in the text. @default false
	 * @throws ArgumentError a token is no integer from 0 to V − 1
	 */
	decode(tokens: ArrayLike<number>, options?: { readonly special?: boolean }): string;
	/**
	 * The bytes that one token adds to a text that goes on: bytes and not text, because a character may be spread over several
	 * tokens (`Utf8Stream` puts them together). Special tokens add none.
	 * @param first whether this is the text's first token that is not special: some vocabularies drop a leading space there. @default false
	 * @throws ArgumentError the token is no integer from 0 to V − 1
	 */
	bytes(token: number, first?: boolean): Uint8Array;
	/** Whether this token stands for no text: begin, end, padding, who speaks; or what the vocabulary does not have. */
	isSpecial(token: number): boolean;
	/** The token as the vocabulary writes it, for people to look at; '' where the vocabulary has no such token. */
	name(token: number): string;
}
