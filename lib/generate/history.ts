/** How often a token stands among the last ones. */
export interface Occurrences {
	/** In the prompt or in what was generated. */
	all: number;
	/** In what was generated. */
	generated: number;
}

/** The last tokens of a text, counted. */
export class History {
	readonly counts = new Map<number, Occurrences>();
	readonly #window: number;
	/** The tokens in the window, in a ring. A generated token t is kept as t, one of the prompt as −1 − t. */
	readonly #ring: number[] = [];
	#oldest = 0;

	/** @param window how many of the last tokens are counted; Infinity: all */
	constructor(window: number) {
		this.#window = window;
	}

	add(token: number, generated: boolean): void {
		if (this.#window === 0) return;
		this.#count(token, generated, 1);
		if (this.#window === Infinity) return;
		const entry = generated ? token : -1 - token;
		if (this.#ring.length < this.#window) {
			this.#ring.push(entry);
			return;
		}
		const before = this.#ring[this.#oldest]!;
		this.#count(before < 0 ? -1 - before : before, before >= 0, -1);
		this.#ring[this.#oldest] = entry;
		this.#oldest = (this.#oldest + 1) % this.#window;
	}

	#count(token: number, generated: boolean, by: number): void {
		let found = this.counts.get(token);
		if (!found) this.counts.set(token, (found = { all: 0, generated: 0 }));
		found.all += by;
		if (generated) found.generated += by;
		if (found.all === 0) this.counts.delete(token);
	}
}
