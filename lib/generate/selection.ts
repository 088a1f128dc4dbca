/**
 * The highest of many scores without sorting them all: a heap of the k best so far, whose root is the worst of them
 * (Floyd 1964). One pass over V scores, of which almost all are done after one comparison.
 */
export class Selection {
	/** What the last call found: as many as it returned, until the next call. */
	tokens = new Int32Array(64);

	/**
	 * Find the tokens of the k highest scores, the highest first; of equal scores the lower token first.
	 * @param scores [V], without NaN
	 * @returns how many there are: k, at most V
	 */
	highest(scores: Float64Array, k: number): number {
		const n = Math.min(k, scores.length);
		if (this.tokens.length < n) this.tokens = new Int32Array(Math.min(2 * n, scores.length));
		const heap = this.tokens;
		for (let i = 0; i < n; i++) heap[i] = i;
		for (let i = (n >> 1) - 1; i >= 0; i--) sink(heap, scores, i, n);
		let least = scores[heap[0]!]!;
		for (let token = n; token < scores.length; token++) {
			if (scores[token]! > least) {
				heap[0] = token;
				sink(heap, scores, 0, n);
				least = scores[heap[0]!]!;
			}
		}
		for (let end = n - 1; end > 0; end--) {
			const worst = heap[0]!;
			heap[0] = heap[end]!;
			heap[end] = worst;
			sink(heap, scores, 0, end);
		}
		return n;
	}
}

/** Move the token at `i` down to where no child is worse than it. */
function sink(heap: Int32Array, scores: Float64Array, i: number, n: number): void {
	const token = heap[i]!;
	const score = scores[token]!;
	for (let child = 2 * i + 1; child < n; child = 2 * i + 1) {
		let other = heap[child]!;
		let otherScore = scores[other]!;
		if (child + 1 < n) {
			const right = heap[child + 1]!;
			const rightScore = scores[right]!;
			if (rightScore < otherScore || (rightScore === otherScore && right > other)) {
				child++;
				other = right;
				otherScore = rightScore;
			}
		}
		if (score < otherScore || (score === otherScore && token > other)) break;
		heap[i] = other;
		i = child;
	}
	heap[i] = token;
}
