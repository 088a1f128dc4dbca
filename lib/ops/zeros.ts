import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { Tensor } from '../tensor.js';

/** A tensor of zeros. @param device default `'cpu'` */
export function zeros(shape: readonly number[], device: DeviceName = 'cpu'): Tensor {
	const y = Tensor.empty(shape, device);
	binding.fill(y.buffer, 0, y.size);
	return y;
}
