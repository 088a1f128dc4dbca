import { needsGrad } from '../autograd.js';
import { binding } from '../binding.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { storedKinds } from './stored.js';

/**
 * Rows of a table: the embedding of tokens. No gradient yet.
 * @param ids whole numbers from 0 below V
 * @param w `[V, C]`, of any type that weights are stored in
 * @returns `[ids.length, C]`
 */
export function embed(ids: Int32Array, w: Tensor): Tensor {
	const [V, C] = w.shape;
	const kind = storedKinds[w.dtype];
	if (w.shape.length !== 2 || kind === undefined) {
		throw new ShapeError(`embed: \`w\` has shape [${w.shape.join(', ')}] and holds ${w.dtype}, expected weights [V C]`);
	}
	const wrong = ids.findIndex((id) => id < 0 || id >= V!);
	if (wrong >= 0) throw new ArgumentError(`embed: token ${ids[wrong]} at place ${wrong}, expected one from 0 below ${V}`);
	if (needsGrad(w)) throw new ArgumentError('embed: a gradient is asked for, expected inference (it has none yet)');
	const list = Tensor.empty([ids.length], w.device, 'i32', ids);
	const y = Tensor.empty([ids.length, C!], w.device);
	binding.embedStored(list.buffer, w.buffer, y.buffer, kind, ids.length, V!, C!);
	list.dispose();
	return y;
}
