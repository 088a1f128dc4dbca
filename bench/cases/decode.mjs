// Decoding a LLaMA beside node-llama-cpp on the same file: a token at a time with few and many states before it, a prompt
// read at once, and sequences side by side.
import { read } from '../ceilings.mjs';
import { oplus } from '../machine.mjs';
import { modelFile } from '../models/make.mjs';
import { shapes, stateBytes, weightBytes, weightsOf } from '../models/shapes.mjs';
import { filled } from '../sessions.mjs';
import { inTurns, seconds } from '../timing.mjs';

const { full, Llama } = oplus;

export const name = 'decode';

const token = (i) => 3 + (i % 500);

/** Bytes that a step must read: the weights once, and every sequence's states. And its operations, of which a multiply-add is two. */
export function floor({ shape, type, batch, states, dtype }) {
	const sizes = shapes[shape];
	const attention = 4 * states * sizes.layers * sizes.dim;
	return {
		bytes: weightBytes(sizes, type) + batch * states * stateBytes(sizes, dtype),
		operations: batch * (2 * weightsOf(sizes) + attention),
	};
}

/**
 * A contestant for `inTurns` that takes as many steps as fit into `budget` seconds, going by the time of its last ones: some
 * are a hundred times slower than others, and some are so only now and then.
 * @param {(steps: number) => Promise<number>} run seconds of a step, the mean of `steps`
 */
export function paced(run, budget) {
	let steps = 1;
	return async () => {
		const taken = await run(steps);
		steps = Math.min(32, Math.max(1, Math.round(budget / taken)));
		return taken;
	};
}

/** @returns a contestant, and what frees it */
export function stepper(model, { cache, states, batch = 1, dtype, budget }) {
	const { session, rewind } = filled(model, { cache, states, batch, dtype });
	const run = paced(async (steps) => {
		rewind();
		const ids = (i) => (batch === 1 ? [token(i)] : Array.from({ length: batch }, (_, b) => [token(i + b)]));
		let logits;
		const all = await seconds(async () => {
			for (let i = 0; i < steps; i++) logits = await session.next(ids(i));
		});
		check(logits);
		return all / steps;
	}, budget);
	return { run, dispose: () => session.dispose() };
}

/** Numbers that mean nothing are computed faster, or slower, than those that do. */
function check(logits) {
	let [least, most] = [Infinity, -Infinity];
	for (const each of logits) [least, most] = [Math.min(least, each), Math.max(most, each)];
	if (!(Number.isFinite(least) && Number.isFinite(most) && least < most)) throw new Error(`logits from ${least} to ${most}`);
}

function goalsOf(setting, what) {
	if (setting.quick) return [];
	const peer = (name, atLeast) => ({
		what: `${what}: at least ${atLeast} × the rate of ${name}`,
		atLeast,
		found: ({ peers }) => peers[name]?.ratio,
	});
	const pinned = setting.threads > 1;
	return pinned ? [peer('node-llama-cpp, pinned', 1), peer('node-llama-cpp', 1.5)] : [peer('node-llama-cpp', 1)];
}

/** One line: ours with a cache in halves, as the peer's is, and in floats, beside the peer and a read of the bytes. */
async function steps(model, of, setting, peers) {
	const { shape, type, at, batch } = of;
	const path = modelFile(shape, type);
	const room = at + 128;
	const budget = setting.quick ? 0.02 : setting.budget;
	const halves = stepper(model, { cache: full(), states: at, batch, dtype: 'f16', budget });
	const floats = stepper(model, { cache: full(), states: at, batch, dtype: 'f32', budget });
	const work = floor({ shape, type, batch, states: at, dtype: 'f16' });
	const ceiling = read(work.bytes);
	const contestants = { ours: halves.run, 'a read': ceiling.run, 'ours, cache of f32': floats.run, again: halves.run };
	for (const [name, peer] of Object.entries(peers)) {
		await peer.ask({ work: 'open', path, threads: setting.threads, sequences: batch, room: room * batch, at });
		contestants[name] = paced(async (count) => (await peer.ask({ work: 'decode', steps: count, sequences: batch })).seconds[0], budget);
	}
	const times = await inTurns(contestants, { ...setting.rounds, warmups: 2 });
	for (const each of [halves, floats, ceiling]) each.dispose();
	const goals = goalsOf(setting, 'decoding');
	if (!setting.quick && batch === 1 && at === 0) {
		goals.push({ what: 'at least 85 % of a read of the weights', atLeast: 0.85, found: ({ ceiling }) => ceiling.fraction });
	}
	if (!setting.quick && at >= 4000) goals.push({ ...goals[0], what: `${goals[0].what.replace(' 1 ×', ' 1.5 ×')}`, atLeast: 1.5 });
	const sizes = { model: shape, weights: type, context: at, batch };
	return { name: 'decode', sizes, threads: setting.threads, tokens: batch, ...work, times, ceiling: 'a read', goals };
}

async function prefill(model, { shape, type, tokens }, setting, peers) {
	const path = modelFile(shape, type);
	const ids = Int32Array.from({ length: tokens }, (_, i) => token(i));
	const ours = (dtype) => async () => {
		const session = model.session({ cache: full(), dtype });
		const taken = await seconds(() => session.next(ids));
		session.dispose();
		return taken;
	};
	const contestants = { ours: ours('f32'), again: ours('f32'), 'ours, cache of f16': ours('f16') };
	for (const [name, peer] of Object.entries(peers)) {
		await peer.ask({ work: 'open', path, threads: setting.threads, room: tokens + 128 });
		contestants[name] = peer.contestant({ work: 'prefill', tokens });
	}
	const times = await inTurns(contestants, setting.rounds);
	const sizes = shapes[shape];
	const head = sizes.vocabulary * sizes.dim; // of the last token alone
	const attention = 2 * tokens * tokens * sizes.layers * sizes.dim;
	return {
		name: 'prefill',
		sizes: { model: shape, weights: type, tokens },
		threads: setting.threads,
		tokens,
		bytes: weightBytes(sizes, type) + tokens * stateBytes(sizes, 'f32'),
		operations: 2 * tokens * (weightsOf(sizes) - head) + 2 * head + attention,
		times,
		goals: goalsOf(setting, 'prefill'),
	};
}

const models = [
	['110m', 'f32'],
	['110m', 'f16'],
	['110m', 'q8_0'],
	['1.1b', 'q8_0'],
	['1.1b', 'f16'],
];

/** @param {{ threads: number, quick: boolean, models?: string[] }} setting `models`: only these, as 110m-f16 */
export async function* run(setting, startPeers) {
	const wanted = ([shape, type]) => !setting.models?.length || setting.models.includes(`${shape}-${type}`);
	const common = { budget: 0.3, rounds: setting.quick ? { rounds: 2 } : { rounds: 9, budget: 30 }, ...setting };
	for (const [shape, type] of (setting.quick ? [['tiny', 'q8_0']] : models).filter(wanted)) {
		const model = await Llama.load(modelFile(shape, type));
		const peers = startPeers?.(setting.threads) ?? {};
		try {
			for (const at of setting.quick ? [0, 32] : [0, 1024, 4000]) yield await steps(model, { shape, type, at, batch: 1 }, common, peers);
			yield await steps(model, { shape, type, at: 0, batch: setting.quick ? 2 : 8 }, common, peers);
			yield await prefill(model, { shape, type, tokens: setting.quick ? 16 : 512 }, common, peers);
		} finally {
			for (const peer of Object.values(peers)) peer.close();
			model.dispose();
			oplus.trim();
		}
	}
}
