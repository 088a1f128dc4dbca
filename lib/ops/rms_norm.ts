import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims, rowsOf } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';

export interface RmsNormOptions {
	/** Added to the mean of squares. @default 1e-5 */
	readonly epsilon?: number;
}

/**
 * Root mean square normalisation over the last dimension: y = x · gamma / √(mean x² + epsilon).
 * @param x `[…, C]`
 * @param gamma `[C]`
 * @returns x's shape
 * @see Zhang & Sennrich 2019, "Root mean square layer normalization", equation 4
 */
export function rmsNorm(x: Tensor, gamma: Tensor, options: RmsNormOptions = {}): Tensor {
	const { epsilon = 1e-5 } = options;
	const { C } = dims('rmsNorm', { gamma: [gamma, 'C'], x: [x, '… C'] });
	if (!(epsilon >= 0 && epsilon < Infinity)) throw new ArgumentError(`rmsNorm: epsilon is ${epsilon}, expected a finite number from 0`);
	const N = rowsOf(x.shape);
	const y = Tensor.empty(x.shape, x.device);
	binding.rmsNorm(x.buffer, gamma.buffer, y.buffer, N, C, epsilon);
	record([x, gamma], [y], ([g]) => {
		const dx = Tensor.empty(x.shape, x.device);
		const dgamma = Tensor.empty(gamma.shape, x.device);
		binding.rmsNormBackward(g!.buffer, x.buffer, gamma.buffer, dx.buffer, dgamma.buffer, N, C, epsilon);
		return [dx, dgamma];
	});
	return y;
}
