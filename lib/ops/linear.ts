import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims, rowsOf } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { storedKinds } from './stored.js';

/**
 * An affine map of the last dimension: y = x · wᵀ + b. Sums are f32, whatever w is stored in; only an f32 w can have gradients, and
 * none flow through one of another type yet.
 * @param x `[…, C]`
 * @param w `[F, C]`, of any type that weights are stored in
 * @param b `[F]` @default none
 * @returns `[…, F]`
 */
export function linear(x: Tensor, w: Tensor, b?: Tensor | null): Tensor {
	const kind = storedKinds[w.dtype];
	if (kind === undefined) throw new ArgumentError(`linear: \`w\` holds ${w.dtype}, expected one of ${Object.keys(storedKinds).join(', ')}`);
	const { C, F } = dims('linear', { w: [w, 'F C', w.dtype], b: [b, 'F'], x: [x, '… C'] });
	const N = rowsOf(x.shape);
	const y = Tensor.empty(x.shape.with(-1, F), x.device);
	if (kind !== 0) {
		if (needsGrad(x, w, b)) throw new ArgumentError(`linear: a gradient is asked for through a w of ${w.dtype}, expected f32`);
		binding.linearStored(x.buffer, w.buffer, b?.buffer ?? null, y.buffer, kind, N, C, F);
		return y;
	}
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
