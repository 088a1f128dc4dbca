import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { Tensor } from '../tensor.js';

/**
 * x · Φ(x), Φ the normal distribution function: the exact GELU (by erf), not the approximation by tanh.
 * @param x any shape
 * @see Hendrycks & Gimpel 2016, "Gaussian error linear units", section 2
 */
export function gelu(x: Tensor): Tensor {
	dims('gelu', { x: [x, '…'] });
	const y = Tensor.empty(x.shape, x.device);
	binding.gelu(x.buffer, y.buffer, x.size);
	record([x], [y], ([g]) => {
		const dx = Tensor.empty(x.shape, x.device);
		binding.geluBackward(x.buffer, g!.buffer, dx.buffer, x.size);
		return [dx];
	});
	return y;
}
