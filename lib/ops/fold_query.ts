import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';

/**
 * A fixed query folded into the projection of the keys: a[h] = w[h]ᵀ · q[h] / √D, so that a head's score of a token x is
 * a[h] · x, and no key is ever made.
 * @param q `[H, D]`, or `[H·D]`: the projected query
 * @param w `[H·D, C]`: the projection of the keys
 * @param heads H, a divisor of w's rows
 * @returns `[H, C]`
 * @see Feng et al. 2024, "Attention as an RNN", section 3.3: the query does not depend on the tokens
 */
export function foldQuery(q: Tensor, w: Tensor, heads: number): Tensor {
	const { R, C } = dims('foldQuery', { w: [w, 'R C'], q: [q, '…'] });
	if (!Number.isInteger(heads) || heads < 1 || R % heads) {
		throw new ArgumentError(`foldQuery: heads is ${heads}, expected a divisor of the ${R} rows of w`);
	}
	const D = R / heads;
	const fits = q.shape.length === 1 ? q.size === R : q.shape.length === 2 && q.shape[0] === heads && q.shape[1] === D;
	if (!fits) throw new ShapeError(`foldQuery: \`q\` has shape [${q.shape.join(', ')}], expected [${R}] or [${heads}, ${D}]`);
	const factor = D > 0 ? 1 / Math.sqrt(D) : 1;
	const a = Tensor.empty([heads, C], w.device);
	binding.foldQuery(q.buffer, w.buffer, a.buffer, heads, D, C, factor);
	record([q, w], [a], ([g]) => {
		const dq = Tensor.empty(q.shape, q.device);
		const dw = Tensor.empty(w.shape, w.device);
		binding.foldQueryBackward(q.buffer, w.buffer, g!.buffer, dq.buffer, dw.buffer, heads, D, C, factor);
		return [dq, dw];
	});
	return a;
}
