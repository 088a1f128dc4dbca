import { uniformFloat64 } from 'pure-rand/distribution/uniformFloat64';
import { mersenne } from 'pure-rand/generator/mersenne';
import { ArgumentError } from './errors.js';

/** Random numbers from a seed: the same seed, the same numbers, on every machine. */
export class Random {
	readonly #generator: ReturnType<typeof mersenne>;

	/** @param seed an integer from 0 to 2^53 − 1 */
	constructor(seed: number) {
		if (!Number.isSafeInteger(seed) || seed < 0) throw new ArgumentError(`seed is ${seed}, expected an integer from 0 to 2^53 - 1`);
		// 53 bits into the generator's 32: both halves count, and neighbouring seeds are far apart.
		this.#generator = mersenne(Math.imul(seed >>> 0, 0x9e3779b1) ^ Math.imul(Math.floor(seed / 2 ** 32) + 1, 0x85ebca6b));
	}

	/** In [0, 1). */
	uniform(): number {
		return uniformFloat64(this.#generator);
	}

	/** An integer in [0, n). */
	integer(n: number): number {
		return Math.floor(this.uniform() * n);
	}

	/** Mean 0, variance 1 (Box & Muller 1958). */
	normal(): number {
		const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
		return radius * Math.cos(2 * Math.PI * this.uniform());
	}

	/** A seed for something else. */
	seed(): number {
		return Math.floor(this.uniform() * 2 ** 53);
	}

	/** In place (Fisher & Yates). */
	shuffle<T extends { length: number; [index: number]: unknown }>(items: T): T {
		for (let i = items.length - 1; i > 0; i--) {
			const j = this.integer(i + 1);
			const item = items[i];
			items[i] = items[j];
			items[j] = item;
		}
		return items;
	}
}
