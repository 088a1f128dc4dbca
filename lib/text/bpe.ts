import { Heap } from './heap.js';

/** A part of a text, in UTF-16 units, and the token that it is; -1: the vocabulary has no such token. */
type Take = (token: number, start: number, end: number) => void;

/**
 * Byte-pair encoding by scores, as SentencePiece does it (Kudo & Richardson 2018): start with characters; of all neighbours whose texts
 * together are a token, join those with the best score, the leftmost of equals; until there are none.
 *
 * What could be joined waits in a heap, so n characters take O(n log n); looking for the best anew each time, as run.c does, takes O(n²).
 */
export class ScoreBpe {
	readonly #tokens = new Map<string, number>();
	/** By token: 0 is the best score; equal scores have equal ranks. */
	readonly #ranks: Int32Array;
	readonly #longest: number;
	readonly #onlyTokens: boolean;

	/**
	 * @param texts by token; undefined: never the result of joining. Of equal texts the first counts
	 * @param scores by token, none of them NaN
	 * @param onlyTokens join only what is a token by itself (run.c), and not also characters that are none (SentencePiece)
	 */
	constructor(texts: readonly (string | undefined)[], scores: ArrayLike<number>, onlyTokens: boolean) {
		let longest = 0;
		texts.forEach((text, token) => {
			if (text === undefined || text === '' || this.#tokens.has(text)) return;
			this.#tokens.set(text, token);
			longest = Math.max(longest, text.length);
		});
		this.#longest = longest;
		this.#onlyTokens = onlyTokens;
		const sorted = Float64Array.from(new Set(Array.from(scores)))
			.sort()
			.reverse();
		const places = new Map(Array.from(sorted, (score, rank) => [score, rank] as const));
		this.#ranks = Int32Array.from(texts, (_, token) => places.get(scores[token]!)!);
	}

	/** Hands the parts of a well-formed text to `take`, from left to right. */
	encode(text: string, take: Take): void {
		// Part i lies from starts[i] to the start of the part after it. It keeps its number when it swallows that one.
		const starts = characters(text);
		const count = starts.length - 1;
		const after = Int32Array.from({ length: count }, (_, i) => i + 1);
		const before = Int32Array.from({ length: count + 1 }, (_, i) => i - 1);
		const tokens = Int32Array.from({ length: count }, (_, i) => this.#token(text, starts[i]!, starts[i + 1]!));
		const gone = new Uint8Array(count);
		const heap = new Heap();

		const joined = (left: number): number => {
			const right = after[left]!;
			if (right === count || (this.#onlyTokens && (tokens[left]! < 0 || tokens[right]! < 0))) return -1;
			return this.#token(text, starts[left]!, starts[after[right]!]!);
		};
		const consider = (left: number): void => {
			const token = joined(left);
			if (token >= 0) heap.push(this.#ranks[token]! * places + left);
		};
		for (let left = 0; left < count; left++) consider(left);
		while (heap.size > 0) {
			const key = heap.pop();
			const left = key % places;
			if (gone[left]) continue;
			// The neighbours may have changed since this was put on the heap. If they have the same rank all the same, it is their turn.
			const token = joined(left);
			if (token < 0 || this.#ranks[token]! !== (key - left) / places) continue;
			const right = after[left]!;
			gone[right] = 1;
			tokens[left] = token;
			after[left] = after[right]!;
			before[after[right]!] = left;
			consider(left);
			if (before[left]! >= 0) consider(before[left]!);
		}
		for (let part = 0; part < count; part = after[part]!) take(tokens[part]!, starts[part]!, starts[after[part]!]!);
	}

	#token(text: string, start: number, end: number): number {
		return end - start > this.#longest ? -1 : (this.#tokens.get(text.slice(start, end)) ?? -1);
	}
}

/** A key on the heap is rank × this + part: exact, for there are fewer than 2²¹ ranks and a string has fewer than 2³⁰ units. */
const places = 2 ** 31;

/** Where the characters of a text start, and its end. */
function characters(text: string): Int32Array {
	const starts = new Int32Array(text.length + 1);
	let count = 0;
	for (let at = 0; at < text.length; at += text.codePointAt(at)! > 0xffff ? 2 : 1) starts[count++] = at;
	starts[count] = text.length;
	return starts.subarray(0, count + 1);
}
