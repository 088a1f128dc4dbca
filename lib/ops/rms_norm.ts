import { needsGrad } from '../autograd.js';
import { binding } from '../binding.js';
import { dims, rowsOf } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';

export interface RmsNormOptions {
	/** Added to the mean of squares. @default 1e-5 */
	readonly epsilon?: number;
}

/**
 * Root mean square normalisation over the last dimension: y = x · gamma / √(mean x² + epsilon). No gradient yet.
 * @param x `[…, C]`
 * @param gamma `[C]`
 * @returns x's shape
 * @see Zhang & Sennrich 2019, "Root mean square layer normalization", equation 4
 */
export function rmsNorm(x: Tensor, gamma: Tensor, options: RmsNormOptions = {}): Tensor {
	const { epsilon = 1e-5 } = options;
	const { C } = dims('rmsNorm', { gamma: [gamma, 'C'], x: [x, '… C'] });
	if (!(epsilon >= 0 && epsilon < Infinity)) throw new ArgumentError(`rmsNorm: epsilon is ${epsilon}, expected a finite number from 0`);
	if (needsGrad(x, gamma)) throw new ArgumentError('rmsNorm: a gradient is asked for, expected inference (it has none yet)');
	const y = Tensor.empty(x.shape, x.device);
	binding.rmsNorm(x.buffer, gamma.buffer, y.buffer, rowsOf(x.shape), C, epsilon);
	return y;
}
