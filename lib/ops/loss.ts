import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';

/**
 * The mean of (x − y)² over all elements.
 * @param x any shape
 * @param y x's shape
 * @returns a scalar, shape `[]`
 */
export function meanSquaredError(x: Tensor, y: Tensor): Tensor {
	dims('meanSquaredError', { x: [x, '…'], y: [y, '…'] });
	if (x.shape.length !== y.shape.length || x.shape.some((size, axis) => size !== y.shape[axis])) {
		throw new ShapeError(`meanSquaredError: \`y\` has shape [${y.shape.join(', ')}], expected [${x.shape.join(', ')}] as x`);
	}
	const loss = Tensor.empty([], x.device);
	binding.meanSquaredError(x.buffer, y.buffer, loss.buffer, x.size);
	record([x, y], [loss], ([g]) => {
		const toward = (a: Tensor, b: Tensor) => {
			if (!a.requiresGrad) return null;
			const da = Tensor.empty(a.shape, a.device);
			binding.meanSquaredErrorBackward(a.buffer, b.buffer, g!.buffer, da.buffer, a.size);
			return da;
		};
		return [toward(x, y), toward(y, x)];
	});
	return loss;
}
