/**
 * Places in a word that byte-pair encoding never joins across, so that a long word can be encoded piece by piece.
 *
 * Whatever is joined is one of `products`, so a place that lies inside no occurrence of a product in the word stays a border to the end;
 * and joins on two sides of a border do not change each other. So the tokens of the pieces are the tokens of the word.
 */
export class Borders {
	/** Sorted by UTF-16 units: the products that begin with the same units are neighbours. */
	readonly #products: readonly string[];

	/** @param products all texts that merges can make */
	constructor(products: Iterable<string>) {
		this.#products = [...new Set(products)].sort();
	}

	/** The pieces of a well-formed word, in order. */
	split(word: string): string[] {
		const pieces: string[] = [];
		let start = 0;
		let reach = 1; // the end of the furthest product that began so far
		for (let at = 0; at < word.length; at++) {
			if (at >= reach && at > start && !isLow(word.charCodeAt(at))) {
				pieces.push(word.slice(start, at));
				start = at;
			}
			reach = Math.max(reach, this.#reach(word, at));
		}
		if (start < word.length) pieces.push(word.slice(start));
		return pieces;
	}

	/** The end of the longest product that begins here; where there is none, here. */
	#reach(word: string, start: number): number {
		const products = this.#products;
		let from = 0;
		let to = products.length; // products[from..to) begin as the word does here
		let reach = start;
		for (let at = start; at < word.length && from < to; at++) {
			const depth = at - start;
			const unit = word.charCodeAt(at);
			from = this.#below(from, to, depth, unit);
			to = this.#below(from, to, depth, unit + 1);
			if (from < to && products[from]!.length === depth + 1) reach = at + 1;
		}
		return reach;
	}

	/** The first of products[from..to) whose unit at `depth` is not below this one: its end comes before every unit. */
	#below(from: number, to: number, depth: number, unit: number): number {
		let low = from;
		let high = to;
		while (low < high) {
			const middle = (low + high) >>> 1;
			const product = this.#products[middle]!;
			if (product.length <= depth || product.charCodeAt(depth) < unit) low = middle + 1;
			else high = middle;
		}
		return low;
	}
}

const isLow = (unit: number) => unit >= 0xdc00 && unit <= 0xdfff;
