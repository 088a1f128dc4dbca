import type { DeviceName } from '../device.js';
import { ArgumentError } from '../errors.js';
import { type Tensor, tensor } from '../tensor.js';

/**
 * How many tokens of each sequence of a batch are real, as `scan` and `attend` take it: those at t ≥ lengths[b] are padding.
 * @param values one integer from 0 for each sequence
 * @param device default `'cpu'`
 * @returns `[B]` of i32
 */
export function lengths(values: readonly number[], device: DeviceName = 'cpu'): Tensor {
	values.forEach((value, b) => {
		if (!Number.isInteger(value) || value < 0 || value > 0x7fffffff) {
			throw new ArgumentError(`lengths: [${b}] is ${value}, expected an integer from 0`);
		}
	});
	return tensor(values, [values.length], { device, dtype: 'i32' });
}
