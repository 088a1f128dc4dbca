import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims, rowsOf } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';

export interface LayerNormOptions {
	/** Added to the variance. @default 1e-5 */
	readonly epsilon?: number;
}

/**
 * Layer normalisation over the last dimension: y = (x − mean) / √(variance + epsilon) · gamma + beta.
 * @param x `[…, C]`
 * @param gamma `[C]`
 * @param beta `[C]`
 * @returns x's shape
 * @see Ba, Kiros & Hinton 2016, "Layer normalization", section 3
 */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, options: LayerNormOptions = {}): Tensor {
	const { epsilon = 1e-5 } = options;
	const { C } = dims('layerNorm', { gamma: [gamma, 'C'], beta: [beta, 'C'], x: [x, '… C'] });
	if (!(epsilon >= 0 && epsilon < Infinity)) throw new ArgumentError(`layerNorm: epsilon is ${epsilon}, expected a finite number from 0`);
	const N = rowsOf(x.shape);
	const { device } = x;
	const y = Tensor.empty(x.shape, device);
	if (!needsGrad(x, gamma, beta)) {
		binding.layerNorm(x.buffer, gamma.buffer, beta.buffer, y.buffer, null, null, N, C, epsilon);
		return y;
	}
	const mean = Tensor.empty([N], device);
	const rstd = Tensor.empty([N], device);
	binding.layerNorm(x.buffer, gamma.buffer, beta.buffer, y.buffer, mean.buffer, rstd.buffer, N, C, epsilon);
	record([x, gamma, beta], [y], ([g]) => {
		const dx = Tensor.empty(x.shape, device);
		const dgamma = Tensor.empty(gamma.shape, device);
		const dbeta = Tensor.empty(beta.shape, device);
		binding.layerNormBackward(g!.buffer, x.buffer, gamma.buffer, mean.buffer, rstd.buffer, dx.buffer, dgamma.buffer, dbeta.buffer, N, C);
		return [dx, dgamma, dbeta];
	});
	return y;
}
