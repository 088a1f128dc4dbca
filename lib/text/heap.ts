/** Numbers of which the least comes first. */
export class Heap {
	readonly #keys: number[] = [];

	get size(): number {
		return this.#keys.length;
	}

	push(key: number): void {
		const keys = this.#keys;
		let at = keys.push(key) - 1;
		while (at > 0) {
			const above = (at - 1) >> 1;
			if (keys[above]! <= key) break;
			keys[at] = keys[above]!;
			at = above;
		}
		keys[at] = key;
	}

	/** The least, taken away. Only when there is one. */
	pop(): number {
		const keys = this.#keys;
		const least = keys[0]!;
		const key = keys.pop()!;
		const size = keys.length;
		if (size === 0) return least;
		let at = 0;
		for (let below = 1; below < size; below = 2 * at + 1) {
			if (below + 1 < size && keys[below + 1]! < keys[below]!) below++;
			if (keys[below]! >= key) break;
			keys[at] = keys[below]!;
			at = below;
		}
		keys[at] = key;
		return least;
	}
}
