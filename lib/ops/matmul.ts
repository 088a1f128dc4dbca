import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { Tensor } from '../tensor.js';

export interface MatmulOptions {
	/** `a` is stored `[K, M]`. @default false */
	readonly transposeA?: boolean;
	/** `b` is stored `[N, K]`. @default false */
	readonly transposeB?: boolean;
}

function product(a: Tensor, b: Tensor, M: number, N: number, K: number, transposeA: boolean, transposeB: boolean): Tensor {
	const y = Tensor.empty([M, N], a.device);
	binding.matmul(a.buffer, b.buffer, y.buffer, M, N, K, transposeA, transposeB);
	return y;
}

/**
 * The product of two matrices: y = op(a) · op(b), where op transposes if asked to.
 * @param a `[M, K]` (`[K, M]` with `transposeA`)
 * @param b `[K, N]` (`[N, K]` with `transposeB`)
 * @returns `[M, N]`
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
	const { transposeA = false, transposeB = false } = options;
	const { M, N, K } = dims('matmul', { a: [a, transposeA ? 'K M' : 'M K'], b: [b, transposeB ? 'N K' : 'K N'] });
	const y = product(a, b, M, N, K, transposeA, transposeB);
	record([a, b], [y], ([g]) => {
		let da: Tensor | null = null;
		let db: Tensor | null = null;
		// d op(a) = g · op(b)ᵀ and d op(b) = op(a)ᵀ · g, each transposed as its operand is stored.
		if (a.requiresGrad) da = transposeA ? product(b, g!, K, M, N, transposeB, true) : product(g!, b, M, K, N, false, !transposeB);
		if (b.requiresGrad) db = transposeB ? product(g!, a, N, K, M, true, transposeA) : product(a, g!, K, N, M, !transposeA, false);
		return [da, db];
	});
	return y;
}
