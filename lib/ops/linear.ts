import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims, rowsOf } from '../dims.js';
import { Tensor } from '../tensor.js';

/**
 * An affine map of the last dimension: y = x · wᵀ + b.
 * @param x `[…, C]`
 * @param w `[F, C]`
 * @param b `[F]` @default none
 * @returns `[…, F]`
 */
export function linear(x: Tensor, w: Tensor, b?: Tensor | null): Tensor {
	const { C, F } = dims('linear', { w: [w, 'F C'], b: [b, 'F'], x: [x, '… C'] });
	const N = rowsOf(x.shape);
	const y = Tensor.empty(x.shape.with(-1, F), x.device);
	binding.linear(x.buffer, w.buffer, b?.buffer ?? null, y.buffer, N, C, F);
	record([x, w, b], [y], ([g]) => {
		const dx = x.requiresGrad ? Tensor.empty(x.shape, x.device) : null;
		if (dx) binding.matmul(g!.buffer, w.buffer, dx.buffer, N, C, F, false, false);
		const dw = w.requiresGrad ? Tensor.empty(w.shape, x.device) : null;
		if (dw) binding.matmul(g!.buffer, x.buffer, dw.buffer, F, C, N, true, false);
		const db = b?.requiresGrad ? Tensor.empty(b.shape, x.device) : null;
		if (db) binding.sum(g!.buffer, db.buffer, 1, N, F);
		return [dx, dw, db];
	});
	return y;
}
