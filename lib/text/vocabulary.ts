import { ArgumentError } from '../errors.js';
import type { Tokenizer } from './tokenizer.js';

/** More tokens than this has no vocabulary (the largest published ones have 262,144): a file that says so lies. */
export const mostTokens = 2 ** 20;

/** One token. `bytes` are what it adds to a text. */
export interface Piece {
	readonly name: string;
	readonly bytes: Uint8Array;
	readonly special: boolean;
}

export interface VocabularyOptions {
	/** V. Tokens without a piece add nothing: models pad their vocabulary. @default as many as there are pieces */
	readonly size?: number;
	/** By token. */
	readonly pieces: readonly (Piece | undefined)[];
	/** The tokens of a well-formed text, without what comes before and behind. */
	readonly split: (text: string) => readonly number[];
	readonly before: readonly number[];
	readonly behind: readonly number[];
	readonly bos: number | null;
	readonly eos: readonly number[];
	/** Whether encoding puts a space in front of the text, so that decoding takes it away. */
	readonly spaceInFront: boolean;
	readonly chatTemplate: string | null;
}

const space = 0x20;
const nothing = new Uint8Array(0);

/** A tokenizer made of a list of tokens, and a way to split a text into them. */
export class VocabularyTokenizer implements Tokenizer {
	readonly size: number;
	readonly bos: number | null;
	readonly eos: readonly number[];
	readonly chatTemplate: string | null;
	readonly #pieces: readonly (Piece | undefined)[];
	readonly #split: (text: string) => readonly number[];
	readonly #before: readonly number[];
	readonly #behind: readonly number[];
	readonly #spaceInFront: boolean;

	constructor(options: VocabularyOptions) {
		this.size = options.size ?? options.pieces.length;
		this.bos = options.bos;
		this.eos = options.eos;
		this.chatTemplate = options.chatTemplate;
		this.#pieces = options.pieces;
		this.#split = options.split;
		this.#before = options.before;
		this.#behind = options.behind;
		this.#spaceInFront = options.spaceInFront;
	}

	encode(text: string, { special = true }: { readonly special?: boolean } = {}): Int32Array {
		if (typeof text !== 'string') throw new ArgumentError(`encode: text is of type ${typeof text}, expected a string`);
		const tokens = this.#split(text.replace(/\p{Surrogate}/gu, '\ufffd'));
		const before = special ? this.#before : [];
		const all = new Int32Array(before.length + tokens.length + (special ? this.#behind.length : 0));
		all.set(before);
		all.set(tokens, before.length);
		if (special) all.set(this.#behind, before.length + tokens.length);
		return all;
	}

	decode(tokens: ArrayLike<number>, { special = false }: { readonly special?: boolean } = {}): string {
		const parts: Uint8Array[] = [];
		let first = true;
		for (let i = 0; i < tokens.length; i++) {
			const token = tokens[i]!;
			const silent = this.isSpecial(token);
			if (!silent || special) {
				parts.push(silent ? Buffer.from(this.name(token)) : this.bytes(token, first));
				first = false;
			}
		}
		return Buffer.concat(parts).toString('utf8');
	}

	bytes(token: number, first = false): Uint8Array {
		const piece = this.#piece(token);
		if (!piece || piece.special) return nothing;
		return first && this.#spaceInFront && piece.bytes[0] === space ? piece.bytes.subarray(1) : piece.bytes;
	}

	isSpecial(token: number): boolean {
		return this.#piece(token)?.special ?? true;
	}

	name(token: number): string {
		return this.#piece(token)?.name ?? '';
	}

	#piece(token: number): Piece | undefined {
		if (!Number.isInteger(token) || token < 0 || token >= this.size) {
			throw new ArgumentError(`the token is ${String(token)}, expected an integer from 0 to ${this.size - 1}`);
		}
		return this.#pieces[token];
	}
}
