import type { Policy } from './policy.js';

/** Every state is kept, as an ordinary Transformer does: memory and the time of a step grow with the sequence. */
export function full(): Policy {
	return { name: 'full', size: Infinity, sinks: 0, recent: 0, heads: 'shared', score: 'position' };
}
