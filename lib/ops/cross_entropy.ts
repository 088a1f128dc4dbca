import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';

/**
 * How unlikely each row's class is: loss[n] = ln Σ_v e^logits[n, v] − logits[n, targets[n]], in nats. Rows whose target is −1 take no
 * part: their loss and gradient are 0, and their logits are not looked at (padding; masked language modelling).
 * @param logits `[N, V]`; −∞ is a class that cannot be
 * @param targets `[N]`, whole numbers from 0 below V, or −1: an array, or a tensor of i32
 * @returns `[N]`; ∞ where the class cannot be
 * @throws ArgumentError where an array holds another number; of a tensor, the read of the result rejects with a `ShapeError`
 */
export function crossEntropy(logits: Tensor, targets: Int32Array | Tensor): Tensor {
	const { N, V } = dims('crossEntropy', { logits: [logits, 'N V'] });
	if (targets instanceof Tensor) dims('crossEntropy', { targets: [targets, `${N}`, 'i32'] });
	else if (targets.length !== N) throw new ShapeError(`crossEntropy: \`targets\` holds ${targets.length} numbers, expected N=${N}`);
	else {
		const wrong = targets.findIndex((target) => target < -1 || target >= V);
		if (wrong >= 0)
			throw new ArgumentError(`crossEntropy: target ${targets[wrong]} at place ${wrong}, expected one from 0 below ${V}, or -1`);
	}
	const list = targets instanceof Tensor ? targets : Tensor.empty([N], logits.device, 'i32', targets);
	const loss = Tensor.empty([N], logits.device);
	binding.crossEntropy(logits.buffer, list.buffer, loss.buffer, N, V);
	if (list !== targets && !needsGrad(logits)) list.dispose();
	record([logits], [loss], ([g]) => {
		const dlogits = Tensor.empty(logits.shape, logits.device);
		binding.crossEntropyBackward(logits.buffer, list.buffer, g!.buffer, dlogits.buffer, N, V);
		return [dlogits];
	});
	return loss;
}
