import { ArgumentError } from '../errors.js';
import { Random } from '../random.js';

/** Places in order, from 1; equal numbers share the mean of theirs. */
export function ranks(values: ArrayLike<number>): Float64Array {
	const order = Array.from(values, (_, i) => i).sort((a, b) => values[a]! - values[b]!);
	const found = new Float64Array(order.length);
	for (let start = 0; start < order.length; ) {
		let end = start + 1;
		while (end < order.length && values[order[end]!] === values[order[start]!]) end++;
		for (let i = start; i < end; i++) found[order[i]!] = (start + 1 + end) / 2;
		start = end;
	}
	return found;
}

/** Pearson's correlation. @returns NaN where either list is all the same */
function pearson(x: Float64Array, y: Float64Array): number {
	const mean = (list: Float64Array) => list.reduce((sum, value) => sum + value, 0) / list.length;
	const [mx, my] = [mean(x), mean(y)];
	let [xy, xx, yy] = [0, 0, 0];
	for (let i = 0; i < x.length; i++) {
		const [dx, dy] = [x[i]! - mx, y[i]! - my];
		xy += dx * dy;
		xx += dx * dx;
		yy += dy * dy;
	}
	return xy / Math.sqrt(xx * yy);
}

/** Spearman's rank correlation: Pearson's of ranks, ties sharing their mean. @throws ArgumentError lists of two lengths, or shorter than 2 */
export function spearman(x: ArrayLike<number>, y: ArrayLike<number>): number {
	if (x.length !== y.length || x.length < 2) {
		throw new ArgumentError(`spearman: found lists of ${x.length} and ${y.length} numbers, expected as many in both, and two or more`);
	}
	return pearson(ranks(x), ranks(y));
}

/** The numbers above the diagonal of an `[n, n]` matrix, its rows and columns in this order. */
function above(matrix: ArrayLike<number>, order: ArrayLike<number>, n: number): Float64Array {
	const pairs = new Float64Array((n * (n - 1)) / 2);
	let at = 0;
	for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) pairs[at++] = matrix[order[i]! * n + order[j]!]!;
	return pairs;
}

export interface MatrixCorrelation {
	/** Spearman's, over pairs of two different labels. */
	readonly correlation: number;
	/** Share of labellings, this one included, whose correlation is as high or higher. */
	readonly p: number;
	readonly permutations: number;
	readonly pairs: number;
}

/**
 * Whether two symmetric matrices over the same labels rise and fall together (Mantel's test). Pairs that share a label are not
 * independent, so the chance of such a correlation is counted by exchanging the labels of one matrix, rows and columns alike.
 * @param a, b `[n, n]`
 * @param options.permutations @default 9999 @param options.seed of the permutations @default 0
 * @see Mantel 1967, "The detection of disease clustering and a generalized regression approach"
 */
export function correlateMatrices(
	a: ArrayLike<number>,
	b: ArrayLike<number>,
	options: { readonly permutations?: number; readonly seed?: number } = {},
): MatrixCorrelation {
	const { permutations = 9999, seed = 0 } = options;
	const n = Math.sqrt(a.length);
	if (!Number.isInteger(n) || n < 3 || b.length !== a.length) {
		throw new ArgumentError(`correlateMatrices: found ${a.length} and ${b.length} numbers, expected n² in both, n from 3`);
	}
	for (const matrix of [a, b]) {
		for (let i = 0; i < n; i++) {
			for (let j = 0; j < i; j++) {
				if (!(matrix[i * n + j] === matrix[j * n + i] && Number.isFinite(matrix[i * n + j])))
					throw new ArgumentError(
						`correlateMatrices: found ${matrix[i * n + j]} and ${matrix[j * n + i]}, expected a number, the same both ways`,
					);
			}
		}
	}
	const order = Uint32Array.from({ length: n }, (_, i) => i);
	// Ranks stay with their pair when labels change, so they are looked up once.
	const fixed = ranks(above(a, order, n));
	const ranked = new Float64Array(n * n);
	let at = 0;
	const moving = ranks(above(b, order, n));
	for (let i = 0; i < n; i++) for (let j = i + 1; j < n; j++) ranked[i * n + j] = ranked[j * n + i] = moving[at++]!;
	const correlation = pearson(fixed, above(ranked, order, n));
	const random = new Random(seed);
	let reached = 1;
	// A hair below, so that rounding does not part labellings that give the same pairs.
	for (let round = 0; round < permutations; round++)
		if (pearson(fixed, above(ranked, random.shuffle(order), n)) >= correlation - 1e-12) reached++;
	return { correlation, p: reached / (1 + permutations), permutations, pairs: fixed.length };
}
