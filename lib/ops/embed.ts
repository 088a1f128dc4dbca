import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { storedKinds } from './stored.js';

/**
 * Rows of a table: the embedding of tokens. Only an f32 table can have a gradient; rows of one token add up in the order of `ids`.
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
	const recorded = needsGrad(w);
	if (recorded && kind !== 0) throw new ArgumentError(`embed: a gradient is asked for through a w of ${w.dtype}, expected f32`);
	const N = ids.length;
	const list = Tensor.empty([N], w.device, 'i32', ids);
	const y = Tensor.empty([N, C!], w.device);
	binding.embedStored(list.buffer, w.buffer, y.buffer, kind, N, V!, C!);
	if (!recorded) list.dispose();
	record([w], [y], ([g]) => {
		const dw = Tensor.empty(w.shape, w.device);
		binding.embedBackward(list.buffer, g!.buffer, dw.buffer, N, V!, C!);
		return [dw];
	});
	return y;
}
