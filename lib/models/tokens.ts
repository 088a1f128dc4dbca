import { ArgumentError } from '../errors.js';
import type { Dataset } from '../train/fit.js';

/** Tokens of one sequence, or a list for each of several, all of one length. */
export type Tokens = ArrayLike<number> | readonly ArrayLike<number>[];

/** What a language model learns from: tokens, and what follows each of them (−1: does not count). Of one shape. */
export interface TokenBatch {
	readonly x: Tokens;
	readonly y: Tokens;
}

/**
 * Tokens row by row.
 * @param least the smallest that may stand there
 * @throws ArgumentError lists of different lengths, or a number that is no token
 */
export function tokenRows(where: string, tokens: Tokens, vocabulary: number, least = 0): { list: Int32Array; B: number; T: number } {
	const nested = Array.isArray(tokens) && tokens.length > 0 && typeof tokens[0] === 'object';
	const rows = (nested ? tokens : [tokens]) as readonly ArrayLike<number>[];
	const B = rows.length;
	const T = rows[0]?.length ?? 0;
	if (!Number.isInteger(T) || T === 0) throw new ArgumentError(`${where}: found no tokens, expected at least one`);
	const list = new Int32Array(B * T);
	for (const [b, row] of rows.entries()) {
		if (row?.length !== T) throw new ArgumentError(`${where}: sequence ${b} has ${row?.length} tokens, expected ${T} as the first`);
		for (let t = 0; t < T; t++) {
			const token = row[t]!;
			if (!Number.isInteger(token) || token < least || token >= vocabulary) {
				throw new ArgumentError(
					`${where}: token ${t} of sequence ${b} is ${token}, expected an integer from ${least} to ${vocabulary - 1}`,
				);
			}
			list[b * T + t] = token;
		}
	}
	return { list, B, T };
}

/**
 * Texts to learn from, each an example that begins where it begins: a model is fed `length` tokens of it and learns what follows each.
 * Shorter texts are padded behind, and what is beyond `length` is left off.
 */
export class TokenTexts implements Dataset<TokenBatch> {
	readonly length: number;
	readonly #texts: readonly ArrayLike<number>[];
	readonly #tokens: number;

	/** @param texts tokens of each, as the tokenizer's `encode` gives them (with BOS where the model was trained with it) */
	constructor(texts: readonly ArrayLike<number>[], options: { readonly length: number }) {
		const { length } = options;
		if (!Number.isInteger(length) || length < 1) throw new ArgumentError(`TokenTexts: length is ${length}, expected an integer from 1`);
		const short = texts.findIndex((text) => text.length < 2);
		if (short >= 0) throw new ArgumentError(`TokenTexts: text ${short} has ${texts[short]!.length} tokens, expected at least 2`);
		this.length = texts.length;
		this.#texts = texts;
		this.#tokens = length;
	}

	/** As many columns as the longest of these texts needs. */
	batch(indices: readonly number[]): TokenBatch {
		const texts = indices.map((index) => this.#texts[index]!);
		const T = Math.min(this.#tokens, Math.max(...texts.map((text) => text.length - 1)));
		const rows = (first: number, padding: number) =>
			texts.map((text) =>
				Int32Array.from({ length: T }, (_, t) => (first + t < text.length && t + 1 < text.length ? text[first + t]! : padding)),
			);
		return { x: rows(0, 0), y: rows(1, -1) };
	}
}
