// How the cost of a stream grows with its length: bytes of state, time of a token, time in all.
import { oplus } from '../machine.mjs';
import { quantile } from '../timing.mjs';
import { C, H, hidden, models, row, steps } from './stream.mjs';

export const name = 'growth';

/**
 * Streams until `tokens` have passed or `budget` seconds are spent, and looks at the last steps before every point.
 * @param {() => any} make the model
 */
async function curve(name, make, { tokens, budget }) {
	const model = make();
	const state = model.initialState();
	await steps(model, model.initialState(), row(), 200); // compiled code, filled caches
	const points = [];
	let total = 0;
	for (let length = 100; length <= tokens && total < budget; length = next(length)) {
		const times = await steps(model, state, row(), length - state.length);
		for (const time of times) total += time;
		const last = times.slice(-Math.min(times.length, 5000));
		points.push({ tokens: length, stateBytes: state.bytes, p50: quantile(last, 0.5), p99: quantile(last, 0.99), totalSeconds: total });
	}
	state.dispose();
	model.dispose();
	return { name, sizes: { C, H, hidden }, points };
}

/** 100, 200, 500, 1000, … */
function next(length) {
	const power = 10 ** Math.floor(Math.log10(length));
	return length / power === 2 ? 5 * power : 2 * length;
}

export async function run({ quick }) {
	const limits = quick ? { tokens: 1000, budget: 5 } : { tokens: 1_000_000, budget: 60 };
	const curves = [];
	for (const [name, options] of [
		['Aaren', {}],
		['causal attention with a KV cache', { mixer: 'attention' }],
	]) {
		const found = await curve(name, () => models.Block(options), limits);
		curves.push(found);
		const end = found.points.at(-1);
		console.log(
			`${name}: ${end.tokens} tokens, state ${end.stateBytes} bytes, p50 ${(end.p50 * 1e6).toFixed(1)} µs, p99 ${(end.p99 * 1e6).toFixed(1)} µs, ${end.totalSeconds.toFixed(1)} s in all`,
		);
	}
	oplus.trim();
	return curves;
}
