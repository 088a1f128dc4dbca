import { checkPolicy, type Policy } from './policy.js';

export interface WindowOptions {
	/** The first positions, which stay. @default 0 */
	readonly sinks?: number;
}

/**
 * The newest states, and with `sinks` the first ones too: `window(512, {sinks: 4})` holds positions 0 to 3 and the newest 508.
 * @param size S: states held at most
 * @see Xiao et al. 2024, "Efficient streaming language models with attention sinks", section 3
 */
export function window(size: number, { sinks = 0 }: WindowOptions = {}): Policy {
	const name = sinks > 0 ? `window+${sinks}` : 'window';
	return checkPolicy('window', { name, size, sinks, recent: 0, heads: 'shared', score: 'position' });
}
