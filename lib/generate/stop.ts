import { ArgumentError } from '../errors.js';

/**
 * Watches a text that comes in pieces for strings that end it, wherever the text is cut. What might be the beginning of such a
 * string is held back until it turns out to be one or not.
 *
 * The string that is complete first ends the text, because nothing is generated after it; of those that are complete with the same
 * character, the longest. So the answer does not depend on how the text is cut.
 */
export class Stop {
	readonly #strings: readonly string[];
	readonly #longest: number;
	readonly #include: boolean;
	#held = '';
	#found: string | null = null;

	/**
	 * @param strings none may be empty or contain half of a surrogate pair
	 * @param options.include whether the string that ended it is part of the text. @default false
	 * @throws ArgumentError
	 */
	constructor(strings: readonly string[], options: { readonly include?: boolean | undefined } = {}) {
		for (const text of strings) {
			if (typeof text !== 'string' || text === '') {
				throw new ArgumentError(`stop: found ${typeof text === 'string' ? 'an empty string' : String(text)}, expected text`);
			}
			if (/\p{Surrogate}/u.test(text)) {
				throw new ArgumentError(`stop: found half of a surrogate pair in ${JSON.stringify(text)}, expected whole characters`);
			}
		}
		this.#strings = [...new Set(strings)];
		this.#longest = strings.reduce((most, { length }) => Math.max(most, length), 0);
		this.#include = options.include ?? false;
	}

	/** The string that ended the text, or null. */
	get found(): string | null {
		return this.#found;
	}

	/** Add a piece. Returns what is certain to belong to the text and has not been returned yet; after the end, nothing. */
	push(piece: string): string {
		if (this.#found !== null || piece === '') return '';
		const text = this.#held + piece;
		let end = Infinity;
		for (const stop of this.#strings) {
			const at = text.indexOf(stop);
			if (at < 0) continue;
			const stopEnd = at + stop.length;
			if (stopEnd < end || (stopEnd === end && stop.length > this.#found!.length)) {
				this.#found = stop;
				end = stopEnd;
			}
		}
		if (this.#found !== null) {
			this.#held = '';
			return text.slice(0, this.#include ? end : end - (this.#found as string).length);
		}
		const sure = text.length - this.#beginning(text);
		this.#held = text.slice(sure);
		return text.slice(0, sure);
	}

	/** The text ends here: what is still held back was no stop string. */
	end(): string {
		const held = this.#held;
		this.#held = '';
		return held;
	}

	/** The length of the longest beginning of a stop string that the text ends with. */
	#beginning(text: string): number {
		for (let n = Math.min(text.length, this.#longest - 1); n > 0; n--) {
			const tail = text.slice(text.length - n);
			if (this.#strings.some((stop) => stop.startsWith(tail))) return n;
		}
		return 0;
	}
}
