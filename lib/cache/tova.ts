import { checkPolicy, type Policy } from './policy.js';

export interface TovaOptions {
	/** The first positions, which stay. @default 0: the first may go */
	readonly sinks?: number;
	/** The newest positions, which stay. @default 0: the newest may go */
	readonly recent?: number;
}

/**
 * Token omission via attention: a layer drops the state that the newest token attends to least, by the mean over all query heads.
 * @param size S: states held at most
 * @see Oren et al. 2024, "Transformers are multi-state RNNs", section 3.2
 */
export function tova(size: number, { sinks = 0, recent = 0 }: TovaOptions = {}): Policy {
	return checkPolicy('tova', { name: 'tova', size, sinks, recent, heads: 'shared', score: 'attention' });
}
