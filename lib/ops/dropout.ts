import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { reshape } from './elementwise.js';

export interface DropoutOptions {
	/** The share of elements that become 0, from 0 up to but not including 1. */
	readonly rate: number;
	/** An integer in [0, 2⁵³). The same seed drops the same elements, on every device. */
	readonly seed: number;
	/** When false, nothing is dropped. @default true */
	readonly training?: boolean;
}

/**
 * Each element becomes 0 with probability `rate`; the others are divided by 1 − rate, so the expectation stays.
 * @param x any shape
 * @see Srivastava et al. 2014, "Dropout", section 10 (the scaled form)
 */
export function dropout(x: Tensor, options: DropoutOptions): Tensor {
	const { rate, seed, training = true } = options;
	dims('dropout', { x: [x, '…'] });
	if (!(rate >= 0 && rate < 1)) throw new ArgumentError(`dropout: rate is ${rate}, expected a number from 0 up to but not including 1`);
	if (!Number.isSafeInteger(seed) || seed < 0) throw new ArgumentError(`dropout: seed is ${seed}, expected an integer in [0, 2⁵³)`);
	if (!training || rate === 0) return reshape(x, x.shape);
	const low = seed % 2 ** 32;
	const high = Math.floor(seed / 2 ** 32);
	const apply = (from: Tensor) => {
		const to = Tensor.empty(x.shape, x.device);
		binding.dropout(from.buffer, to.buffer, rate, low, high, x.size);
		return to;
	};
	const y = apply(x);
	record([x], [y], ([g]) => [apply(g!)]); // the same draws, as they depend on the seed and the place only
	return y;
}
