// How figures are taken on a machine that others use too: contestants run in turns, so that what slows the machine slows all
// of them; medians, so that a scheduler's tick is no figure; ratios within a round, so that drift cancels.
import { setTimeout as sleep } from 'node:timers/promises';

/** @param {number[]} values @param {number} share 0.5: the median */
export function quantile(values, share) {
	const sorted = Float64Array.from(values).sort();
	if (sorted.length === 0) return NaN;
	const at = share * (sorted.length - 1);
	const low = Math.floor(at);
	const high = Math.min(low + 1, sorted.length - 1);
	return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/** @param {number[]} values */
export function median(values) {
	return quantile(values, 0.5);
}

/** Seconds that `run` takes. @param {() => unknown} run */
export async function seconds(run) {
	const start = process.hrtime.bigint();
	await run();
	return Number(process.hrtime.bigint() - start) / 1e9;
}

/**
 * Every contestant once a round, in an order that turns by one each round.
 *
 * @param {Record<string, () => Promise<number> | number>} contestants each runs its work once and says how many seconds it took
 * @param {{ rounds: number, warmups?: number, budget?: number, pause?: number }} options no more rounds are begun after `budget`
 * seconds (3 are always made, unless `rounds` is less); `pause` milliseconds lie between two, in which spinning threads fall asleep
 * @returns {Promise<Record<string, number[]>>} by contestant, a time for every round
 */
export async function inTurns(contestants, { rounds, warmups = 1, budget = Infinity, pause = 5 }) {
	const names = Object.keys(contestants);
	const times = Object.fromEntries(names.map((name) => [name, []]));
	const start = performance.now();
	for (let round = -warmups; round < rounds; round++) {
		if (round >= 3 && performance.now() - start > budget * 1000) break;
		for (let i = 0; i < names.length; i++) {
			const name = names[(i + Math.max(0, round)) % names.length];
			await sleep(pause);
			const time = await contestants[name]();
			if (round >= 0) times[name].push(time);
		}
	}
	return times;
}

/** The median over rounds of a's time divided by b's in the same round. @param {number[]} a @param {number[]} b */
export function ratio(a, b) {
	return median(a.map((time, i) => time / b[i]));
}
