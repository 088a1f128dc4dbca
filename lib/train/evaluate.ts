import { noGrad } from '../autograd.js';
import { ArgumentError } from '../errors.js';
import { scope } from '../tensor.js';
import type { Dataset, Trainable } from './fit.js';

/**
 * The mean loss over all examples, without dropout and without a tape.
 * @param options.batch examples at a time @default 64
 * @throws `signal.reason`, untouched, when it is aborted
 */
export async function evaluate<B>(
	model: Trainable<B>,
	data: Dataset<B>,
	options: { readonly batch?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<{ loss: number }> {
	const { batch = 64, signal } = options;
	if (!Number.isInteger(batch) || batch < 1) throw new ArgumentError(`evaluate: batch is ${batch}, expected an integer from 1`);
	if (data.length === 0) throw new ArgumentError('evaluate: the data holds no examples, expected at least one');
	let total = 0;
	for (let start = 0; start < data.length; start += batch) {
		signal?.throwIfAborted();
		const indices = Array.from({ length: Math.min(batch, data.length - start) }, (_, i) => start + i);
		const { read } = noGrad(() => scope(() => ({ read: model.loss(data.batch(indices)).read() })));
		total += (await read)[0]! * indices.length;
	}
	return { loss: total / data.length };
}
