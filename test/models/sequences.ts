import { Random } from '../../lib/random.js';

/** Rows of tokens, and what is asked of each (−1: nothing). */
interface Rows {
	readonly x: Int32Array[];
	readonly y: Int32Array[];
}

/**
 * A grammar with memory: the first token, 5 or 6, says whether letters (0 to 4) go on by one or by two, which they do four times
 * in five, and else to any. The next token is asked.
 */
export class Letters {
	static readonly vocabulary = 7;
	readonly length: number;
	readonly #rows: Int32Array[];
	readonly #tokens: number;

	/** @param length sequences @param tokens asked in each */
	constructor(length: number, tokens: number, seed = 1) {
		const random = new Random(seed);
		this.length = length;
		this.#tokens = tokens;
		this.#rows = Array.from({ length }, () => {
			const step = 1 + random.integer(2);
			const row = Int32Array.from({ length: tokens + 1 }, () => random.integer(5));
			row[0] = 4 + step;
			for (let t = 2; t <= tokens; t++) if (random.uniform() < 0.8) row[t] = (row[t - 1]! + step) % 5;
			return row;
		});
	}

	/** Of a target, in nats: what no model can be below. */
	get entropy(): number {
		return this.#mean([0.84, 0.04, 0.04, 0.04, 0.04]);
	}

	/** Of a model that knows the letter before and not the first token. */
	get forgetful(): number {
		return this.#mean([0.44, 0.44, 0.04, 0.04, 0.04]);
	}

	/** The first letter is any. */
	#mean(shares: readonly number[]): number {
		const after = shares.reduce((sum, share) => sum - share * Math.log(share), 0);
		return (Math.log(5) + (this.#tokens - 1) * after) / this.#tokens;
	}

	batch(indices: readonly number[]): Rows {
		const at = (from: number) => indices.map((i) => this.#rows[i]!.subarray(from, from + this.#tokens));
		return { x: at(0), y: at(1) };
	}
}

/** Sequences that count up from anywhere by one or two, mod 9; two tokens of each, not the first or last, are masked and asked. */
export class Counting {
	static readonly vocabulary = 10;
	static readonly mask = 9;
	readonly length: number;
	readonly #rows: { x: Int32Array; y: Int32Array }[];

	constructor(length: number, tokens: number, seed = 1) {
		const random = new Random(seed);
		this.length = length;
		this.#rows = Array.from({ length }, () => {
			const [start, step] = [random.integer(9), 1 + random.integer(2)];
			const x = Int32Array.from({ length: tokens }, (_, t) => (start + step * t) % 9);
			const y = new Int32Array(tokens).fill(-1);
			for (let n = 0; n < 2; n++) {
				const t = 1 + random.integer(tokens - 2);
				y[t] = (start + step * t) % 9;
				x[t] = Counting.mask;
			}
			return { x, y };
		});
	}

	batch(indices: readonly number[]): Rows {
		const rows = indices.map((i) => this.#rows[i]!);
		return { x: rows.map(({ x }) => x), y: rows.map(({ y }) => y) };
	}
}
