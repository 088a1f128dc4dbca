import { full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import type { Round } from './reference.js';

/** A state: one key-value head's part of it. */
export interface Candidate {
	readonly position: number;
	readonly key: Float64Array;
	readonly value: Float64Array;
	score: number;
}

/** A policy as the issue has it, and the library's own. */
export interface Plan {
	readonly name: string;
	readonly policy: Policy;
	/** S */
	readonly size: number;
	readonly attention: boolean;
	/** Whether the state of a position may go in the step of position `now`. */
	mayGo(position: number, now: number): boolean;
	/** Each key-value head for itself. */
	readonly own: boolean;
	/** Whether what a state received before counts. */
	readonly sums: boolean;
}

export const plans = {
	full: (): Plan => ({ name: 'full', policy: full(), size: Infinity, attention: false, own: false, sums: false, mayGo: () => false }),
	/** The first i and the last S − i. */
	window: (size: number, sinks = 0): Plan => ({
		name: `window(${size}, ${sinks})`,
		policy: window(size, { sinks }),
		size,
		attention: false,
		own: false,
		sums: false,
		mayGo: (position) => position >= sinks,
	}),
	/** The arg-min of the mean over all query heads of the newest query's probabilities. */
	tova: (size: number, sinks = 0, recent = 0): Plan => ({
		name: `tova(${size}, ${sinks}, ${recent})`,
		policy: tova(size, { sinks, recent }),
		size,
		attention: true,
		own: false,
		sums: false,
		mayGo: (position, now) => position >= sinks && position <= now - recent,
	}),
	/** The newest ⌊S/2⌋ are safe; the lowest sum of what a state received from the query heads of the group. */
	h2o: (size: number, sinks = 0, recent: number | null = null): Plan => ({
		name: `h2o(${size}, ${sinks}, ${recent})`,
		policy: recent === null ? h2o(size, { sinks }) : h2o(size, { sinks, recent }),
		size,
		attention: true,
		own: true,
		sums: true,
		mayGo: (position, now) => position >= sinks && position <= now - (recent ?? Math.floor(size / 2)),
	}),
};

/**
 * Scores of all entries, and which of them goes, by key-value head (−1: none).
 * @param lists entries by key-value head, ascending by position, the new one last
 * @param received probabilities by query head
 */
export function scoreAndChoose(
	plan: Plan,
	lists: readonly Candidate[][],
	received: readonly (readonly number[])[],
	now: number,
	round: Round,
): number[] {
	const heads = received.length;
	const group = heads / lists.length;
	for (const [g, list] of lists.entries()) {
		const counted = plan.own ? received.slice(g * group, (g + 1) * group) : received;
		for (const [j, entry] of list.entries()) {
			let sum = 0;
			for (const p of counted) sum = round(sum + p[j]!);
			if (!plan.own) sum = round(sum / heads);
			entry.score = plan.attention ? (plan.sums ? round(entry.score + sum) : sum) : entry.position;
		}
	}
	return lists.map((list) => {
		if (list.length <= plan.size) return -1;
		let lowest = -1;
		for (const [j, entry] of list.entries()) {
			// Ascending by position: the first of equals has the lowest.
			if (plan.mayGo(entry.position, now) && (lowest < 0 || entry.score < list[lowest]!.score)) lowest = j;
		}
		if (lowest < 0) throw new Error(`${plan.name}: no state may go at position ${now}`);
		return lowest;
	});
}
