// FAVOR+ against exact causal attention, PyTorch's forms of both, plain JavaScript and the attention that returns v, over sequence
// lengths: the figure 3 of Choromanski et al. 2021. And a streaming step, early and late.
import { copy, product } from '../ceilings.mjs';
import { oplus } from '../machine.mjs';
import { favor as plainFavor } from '../peers/plain.mjs';
import { fastestPeer } from '../report.mjs';
import { inTurns, seconds } from '../timing.mjs';

const { noGrad, ops, scope, synchronize, tensor, trim } = oplus;

export const name = 'favor';

/** Bytes that must move: q, k, v read, o written. Operations: two projections, a product with the state, and its update. */
export function floor({ T, H, D, M }) {
	return { bytes: 4 * 4 * T * H * D, operations: 8 * M * D * T * H };
}

const random = (shape) =>
	tensor(
		Float32Array.from({ length: shape.reduce((n, size) => n * size, 1) }, () => 2 * Math.random() - 1),
		shape,
	);

/** Longest sequences that a form is timed on: beyond, it takes minutes, or its T × T matrices do not fit. */
const longest = { exact: 16_384, torchExact: 8192, plain: 1024 };

function contestantsOf(tensors, features, { train }) {
	const { q, k, v } = tensors;
	const timed = (form) => () =>
		seconds(async () => {
			if (!train) noGrad(() => scope(() => void form()));
			else {
				scope(() => {
					const o = form();
					ops.sum(ops.reshape(o, [o.size]), 0).backward();
				});
				for (const each of [q, k, v]) {
					each.grad.dispose();
					each.grad = null;
				}
			}
			await synchronize();
		});
	return {
		favor: timed(() => ops.linearAttention(q, k, v, { features, causal: true }).o),
		exact: timed(() => ops.attend(q, k, v, { causal: true })),
	};
}

async function at(sizes, setting, torch, train) {
	const { T, H, D, M } = sizes;
	const shape = [1, T, H, D];
	const tensors = { q: random(shape), k: random(shape), v: random(shape) };
	for (const each of Object.values(tensors)) each.requiresGrad = train;
	const features = ops.favor({ dim: D, features: M });
	const work = floor(sizes);
	// Backward: features once more, four products with a state instead of two, the state once more, and Ω twice.
	const operations = train ? 3.25 * work.operations : work.operations;
	const bytes = train ? 3 * work.bytes : work.bytes;
	const [ceiling, returnsV] = [product(operations), copy(8 * T * H * D * (train ? 2 : 1))];
	const { favor, exact } = contestantsOf(tensors, features, { train });
	const contestants = { ours: favor, "the products' rate": ceiling.run, again: favor, 'X: returns v': returnsV.run };
	if (T <= longest.exact) contestants['our exact attention'] = exact;
	if (!train && T <= longest.plain) contestants['plain JavaScript'] = () => plainFavor(sizes);
	if (torch) {
		if (T <= longest.torchExact) contestants['PyTorch, exact attention'] = torch.contestant({ work: 'attention', T, H, D, train });
		// The usual chunk, and longer ones, of which some are the best that PyTorch does.
		for (const chunk of [64, 128, 256].filter((each) => each <= T))
			contestants[`PyTorch, Performer in chunks of ${chunk}`] = torch.contestant({ work: 'performer', T, H, D, M, chunk, train });
	}
	const times = await inTurns(contestants, setting.quick ? { rounds: 2 } : { rounds: 7, budget: 25 });
	for (const each of [...Object.values(tensors), features, ceiling, returnsV]) each.dispose();
	await torch?.ask({ work: 'forget' });
	trim();
	const goals = [];
	if (!setting.quick && !train && T >= 4096)
		goals.push({ what: 'at least 60 % of the rate of products', atLeast: 0.6, found: ({ ceiling }) => ceiling.fraction });
	if (!setting.quick && !train && T >= 2048)
		goals.push({ what: 'faster than exact attention', atLeast: 1, found: ({ peers }) => peers['our exact attention']?.ratio });
	if (!setting.quick && !train && T === 16_384) {
		goals.push({ what: "at least 4 × PyTorch's best Performer", atLeast: 4, found: (line) => fastestPeer(line, 'PyTorch, Performer') });
		goals.push({
			what: 'at least 5 × its usual one',
			atLeast: 5,
			found: ({ peers }) => peers['PyTorch, Performer in chunks of 64']?.ratio,
		});
	}
	const title = train ? 'FAVOR+ causal, forward and backward' : 'FAVOR+ causal';
	return { name: title, sizes, threads: setting.threads, bytes, operations, times, ceiling: "the products' rate", goals };
}

/** Steps of one token of all heads, the state moved in place and the result read. */
async function* stream(sizes, setting) {
	const { H, D, M } = sizes;
	const features = ops.favor({ dim: D, features: M });
	const [q, k, v] = [0, 1, 2].map(() => random([1, 1, H, D]));
	const first = ops.linearAttention(q, k, v, { features, causal: true });
	const { state } = first;
	first.o.dispose();
	const step = async () => {
		const { o } = ops.linearAttention(q, k, v, { features, causal: true, state, inPlace: true });
		await o.read();
		o.dispose();
	};
	let seen = 1;
	for (const position of setting.quick ? [10, 40] : [1000, 10_000, 100_000]) {
		for (; seen < position; seen++) await step();
		const times = { ours: [], again: [] };
		for (let i = 0; i < (setting.quick ? 20 : 2000); i++) {
			times.ours.push(await seconds(step));
			times.again.push(await seconds(step));
			seen += 2;
		}
		const bytes = 8 * H * M * (D + 1) + 4 * M * D;
		const operations = 8 * M * D * H;
		yield { name: 'streaming step, FAVOR+', sizes: { ...sizes, T: 1, position }, threads: setting.threads, bytes, operations, times };
	}
	for (const each of [q, k, v, features, ...Object.values(state)]) each.dispose();
}

export async function* run(setting, torch) {
	const sizes = setting.quick ? { H: 2, D: 16, M: 32 } : { H: 8, D: 64, M: 256 };
	const lengths = setting.quick ? [64, 128] : [256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
	for (const train of [false, true]) for (const T of lengths) yield at({ T, ...sizes }, setting, torch, train);
	yield* stream(sizes, setting);
}
