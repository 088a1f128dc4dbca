// A whole layer over a whole sequence, and its training step, against PyTorch's causal Transformer layer.
import { product } from '../ceilings.mjs';
import { oplus, require } from '../machine.mjs';
import { fastestPeer } from '../report.mjs';
import { inTurns, seconds } from '../timing.mjs';

const { Block, noGrad, ops, scope, synchronize, tensor } = oplus;
const { AdamW } = require('../dist/train/adamw.js');

/**
 * What a block must do for B·T tokens: its products (values, output, feed-forward; scores are C·H, the keys are folded away),
 * and its weights, input and output moved once.
 */
export function floor({ B, T, C, H, hidden }) {
	const weights = 2 * C * C + C * H + 2 * C * hidden + 9 * C + hidden;
	return { operations: 2 * B * T * (2 * C * C + C * H + 2 * C * hidden), bytes: 4 * (weights + 2 * B * T * C) };
}

const input = (B, T, C) =>
	tensor(
		Float32Array.from({ length: B * T * C }, (_, i) => Math.sin(i * 0.7)),
		[B, T, C],
	);

async function forward(setting, torch) {
	const sizes = setting.quick ? { B: 1, T: 64, C: 64, H: 4, hidden: 128 } : { B: 1, T: 4096, C: 512, H: 8, hidden: 2048 };
	const { B, T, C, H, hidden } = sizes;
	const { bytes, operations } = floor(sizes);
	const ceiling = product(operations);
	const x = input(B, T, C);
	const contestant = (model) => () =>
		seconds(async () => {
			const y = noGrad(() => scope(() => model.forward(x)));
			await synchronize();
			y.dispose();
		});
	const model = new Block({ dim: C, heads: H, hidden });
	const attention = new Block({ dim: C, heads: H, hidden, mixer: 'attention' });
	const contestants = {
		ours: contestant(model),
		"the products' rate": ceiling.run,
		again: contestant(model),
		'our causal attention': contestant(attention),
	};
	if (torch) contestants['PyTorch, causal layer'] = torch.contestant({ work: 'layer', train: false, ...sizes });
	const times = await inTurns(contestants, setting.quick ? { rounds: 3 } : { rounds: 11, budget: 60 });
	for (const each of [model, attention, ceiling, x]) each.dispose();
	await torch?.ask({ work: 'forget' });
	const goals = [{ what: "at least 3 × PyTorch's causal layer", atLeast: 3, found: (line) => fastestPeer(line, 'PyTorch') }];
	const name = 'Aaren block, forward';
	return {
		name,
		sizes,
		threads: setting.threads,
		bytes,
		operations,
		times,
		ceiling: "the products' rate",
		goals: setting.quick ? [] : goals,
	};
}

async function training(setting, torch) {
	const sizes = setting.quick ? { B: 2, T: 32, C: 64, H: 4, hidden: 128 } : { B: 8, T: 512, C: 512, H: 8, hidden: 2048 };
	const { B, T, C, H, hidden } = sizes;
	const once = floor(sizes);
	const operations = 3 * once.operations; // forward, and a product each for the gradient of its input and of its weights
	const parameters = 4 * (4 * C * C + 2 * C * hidden);
	const bytes = once.bytes + 2 * (2 * B * T * C * 4) + 7 * parameters; // AdamW reads p, g, m, v and writes p, m, v
	const ceiling = product(operations);
	const [x, y] = [input(B, T, C), input(B, T, C)];
	const contestant = (mixer) => {
		const model = new Block({ dim: C, heads: H, hidden, mixer });
		const optimizer = new AdamW(model.parameters(), { rate: 1e-4 });
		const run = () =>
			seconds(() => {
				scope(() => {
					ops.meanSquaredError(model.forward(x), y).backward();
					optimizer.step();
				});
				return synchronize();
			});
		const dispose = () => {
			optimizer.dispose();
			model.dispose();
		};
		return { run, dispose };
	};
	const [ours, attention] = [contestant('aaren'), contestant('attention')];
	const contestants = { ours: ours.run, "the products' rate": ceiling.run, again: ours.run, 'our causal attention': attention.run };
	if (torch) contestants['PyTorch, causal layer'] = torch.contestant({ work: 'layer', train: true, ...sizes });
	const times = await inTurns(contestants, setting.quick ? { rounds: 3 } : { rounds: 9, budget: 60 });
	for (const each of [ours, attention, ceiling, x, y]) each.dispose();
	await torch?.ask({ work: 'forget' });
	const goals = [{ what: "at least 1.5 × PyTorch's training step", atLeast: 1.5, found: (line) => fastestPeer(line, 'PyTorch') }];
	const name = 'Aaren block, training step';
	return {
		name,
		sizes,
		threads: setting.threads,
		bytes,
		operations,
		times,
		ceiling: "the products' rate",
		goals: setting.quick ? [] : goals,
	};
}

export const name = 'layer';

export async function* run(setting, torch) {
	yield forward(setting, torch);
	yield training(setting, torch);
}
