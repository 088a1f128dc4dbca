import { checkPolicy, type Policy } from './policy.js';

export interface H2oOptions {
	/** The newest positions, which stay. @default ⌊size / 2⌋ */
	readonly recent?: number;
	/** The first positions, which stay. @default 0 */
	readonly sinks?: number;
}

/**
 * Heavy hitters: every key-value head for itself drops the state that received the least attention in sum, over all steps since it
 * came and over the query heads of its group; the newest are safe.
 * @param size S: states held at most
 * @see Zhang et al. 2023, "H2O: heavy-hitter oracle for efficient generative inference of large language models", algorithm 1
 */
export function h2o(size: number, { recent = Math.floor(size / 2), sinks = 0 }: H2oOptions = {}): Policy {
	return checkPolicy('h2o', { name: 'h2o', size, sinks, recent, heads: 'own', score: 'attention', memory: 1 });
}
