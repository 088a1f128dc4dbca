import { ArgumentError } from '../errors.js';

/** What a policy of one's own sees of one set of entries: those that one layer, sequence and chooser holds, and the new one behind them. */
export interface Entries {
	readonly layer: number;
	readonly sequence: number;
	/** 0 where all heads of a layer keep the same entries, else the key-value head. */
	readonly head: number;
	/** Positions in the sequence, in no order, the new entry's last. */
	readonly positions: Int32Array;
	/** The attention that each receives from the newest token: mean over all query heads, or sum over those of the key-value head. */
	readonly received: Float32Array;
	/** Scores, to be changed in place and kept for the next step (the new entry's begins at 0): the entry of the lowest goes. */
	readonly scores: Float32Array;
}

/**
 * How a cache that is full makes room: of S + 1 entries the one with the lowest score goes, on a tie the one with the lowest
 * position. A policy is a score.
 */
export interface Policy {
	/** For people, and in snapshots. */
	readonly name: string;
	/** S: states held at most; Infinity: all. */
	readonly size: number;
	/** The first positions of a sequence that never go. */
	readonly sinks: number;
	/** The newest positions that do not go, the new one included. */
	readonly recent: number;
	/** `shared`: all heads of a layer keep the same entries; `own`: each key-value head keeps its own. */
	readonly heads: 'shared' | 'own';
	/**
	 * `position`: the older, the lower. `attention`: what an entry received, its past weighed by `memory`: score ← memory · score +
	 * received. A function: a score of one's own (worked out in JavaScript: one step a token, and a copy from the device for each).
	 */
	readonly score: 'position' | 'attention' | ((entries: Entries) => void);
	/** 0: the newest token's attention alone; 1: the sum over all steps since the entry came. @default 0 */
	readonly memory?: number;
}

/** @throws ArgumentError for a policy that cannot be */
export function checkPolicy(where: string, policy: Policy): Policy {
	const refuse = (what: string, found: unknown, expected: string): never => {
		throw new ArgumentError(`${where}: ${what} is ${String(found)}, expected ${expected}`);
	};
	const { size, sinks, recent, heads, score, memory = 0 } = policy;
	if (size !== Infinity && !(Number.isInteger(size) && size >= 1 && size < 2 ** 31)) refuse('size', size, 'an integer from 1, or Infinity');
	if (!Number.isInteger(sinks) || sinks < 0) refuse('sinks', sinks, 'an integer from 0');
	if (!Number.isInteger(recent) || recent < 0) refuse('recent', recent, 'an integer from 0');
	if (sinks + recent > size) refuse('sinks + recent', sinks + recent, `at most the size of ${size}`);
	if (heads !== 'shared' && heads !== 'own') refuse('heads', heads, "'shared' or 'own'");
	if (typeof score !== 'function' && score !== 'position' && score !== 'attention')
		refuse('score', score, "'position', 'attention' or a function");
	if (!(memory >= 0 && memory <= 1)) refuse('memory', memory, 'a number from 0 to 1');
	return policy;
}
