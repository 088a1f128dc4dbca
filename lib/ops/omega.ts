import { philox } from '../philox.js';

/** How the rows of Ω relate to each other; see `FavorOptions`. */
export type Projection = 'orthogonal' | 'iid' | 'none';

/**
 * Rows ω ~ N(0, I) of a projection, `[rows, dim]`: draw number `draw` of a seed. Made on the host in double precision from a
 * counter-based generator, so every device gets the same bits.
 *
 * `orthogonal`: blocks of `dim` rows that are orthogonal to each other (Choromanski et al. 2021, section 2.4), each of its own χ
 * length, or all of length √dim where `regularised`. A block is uniformly distributed over the rotations: Gram-Schmidt leaves
 * the diagonal of R positive, which libraries' QR does not, and without which positive features are biased (Mezzadri 2007).
 */
export function drawOmega(
	rows: number,
	dim: number,
	{ projection, regularised, seed, draw }: { projection: Projection; regularised: boolean; seed: number; draw: number },
): Float64Array {
	const omega = new Float64Array(rows * dim);
	if (projection === 'none') {
		for (let i = 0; i < rows; i++) omega[i * dim + (i % dim)] = 1;
		return omega;
	}
	const random = normals(seed, draw);
	if (projection === 'iid') {
		for (let i = 0; i < omega.length; i++) omega[i] = random();
		if (regularised) for (let i = 0; i < rows; i++) lengthen(omega.subarray(i * dim, (i + 1) * dim), Math.sqrt(dim));
		return omega;
	}
	for (let first = 0; first < rows; first += dim) {
		const here = Math.min(dim, rows - first);
		for (let i = 0; i < here; i++) {
			const row = omega.subarray((first + i) * dim, (first + i + 1) * dim);
			for (let d = 0; d < dim; d++) row[d] = random();
			// Twice: what rounding left of the earlier rows the first time goes the second.
			for (let pass = 0; pass < 2; pass++)
				for (let j = 0; j < i; j++) {
					const before = omega.subarray((first + j) * dim, (first + j + 1) * dim);
					const along = dot(row, before);
					for (let d = 0; d < dim; d++) row[d]! -= along * before[d]!;
				}
			lengthen(row, 1);
		}
		for (let i = 0; i < here; i++) {
			let squares = 0;
			for (let d = 0; d < dim; d++) squares += random() ** 2;
			lengthen(omega.subarray((first + i) * dim, (first + i + 1) * dim), Math.sqrt(regularised ? dim : squares));
		}
	}
	return omega;
}

function dot(a: Float64Array, b: Float64Array): number {
	let sum = 0;
	for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
	return sum;
}

function lengthen(row: Float64Array, length: number): void {
	const factor = length / Math.sqrt(dot(row, row));
	for (let i = 0; i < row.length; i++) row[i]! *= factor;
}

/** Standard normal numbers, two from every four words (Box & Muller 1958). */
function normals(seed: number, draw: number): () => number {
	let block = 0;
	let next: number[] = [];
	const uniform = (high: number, low: number) => ((high >>> 5) * 2 ** 26 + (low >>> 6) + 0.5) / 2 ** 53; // in (0, 1)
	return () => {
		if (next.length === 0) {
			const [a, b, c, d] = philox(seed, block++, draw);
			const radius = Math.sqrt(-2 * Math.log(uniform(a, b)));
			const angle = 2 * Math.PI * uniform(c, d);
			next = [radius * Math.sin(angle), radius * Math.cos(angle)];
		}
		return next.pop()!;
	};
}
