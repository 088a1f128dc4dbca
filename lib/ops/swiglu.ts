import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';

/**
 * The gate of LLaMA's feed-forward part: a · sigmoid(a) · b.
 * @param a any shape
 * @param b a's shape
 * @see Shazeer 2020, "GLU variants improve Transformer", equation 6
 */
export function swiglu(a: Tensor, b: Tensor): Tensor {
	if (a.shape.length !== b.shape.length || a.shape.some((size, i) => size !== b.shape[i])) {
		throw new ShapeError(`swiglu: \`b\` has shape [${b.shape.join(', ')}], expected [${a.shape.join(', ')}] as \`a\``);
	}
	if (a.dtype !== 'f32' || b.dtype !== 'f32') throw new ArgumentError(`swiglu: found ${a.dtype} and ${b.dtype}, expected f32`);
	const y = Tensor.empty(a.shape, a.device);
	binding.swiglu(a.buffer, b.buffer, y.buffer, a.size);
	record([a, b], [y], ([g]) => {
		const da = Tensor.empty(a.shape, a.device);
		const db = Tensor.empty(b.shape, a.device);
		binding.swigluBackward(a.buffer, b.buffer, g!.buffer, da.buffer, db.buffer, a.size);
		return [da, db];
	});
	return y;
}
