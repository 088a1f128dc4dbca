/**
 * Bytes that come in pieces, to text that comes in pieces and never breaks a character: what is not whole yet is kept. Bytes that are
 * no UTF-8 become U+FFFD, as in `Buffer.toString()`.
 * @example for (const token of tokens) process.stdout.write(stream.push(tokenizer.bytes(token)));
 */
export class Utf8Stream {
	readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true }); // a BOM is a character of the text like any other

	/** The text that these bytes complete, '' if they complete none. */
	push(bytes: Uint8Array): string {
		return this.#decoder.decode(bytes, { stream: true });
	}

	/** What is left at the end: '' or U+FFFD for a character that was never finished. The stream can be used again. */
	end(): string {
		return this.#decoder.decode();
	}
}
