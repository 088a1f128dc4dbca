import { crossEntropy } from '../../lib/ops/cross_entropy.js';
import { type Subject, uniform } from '../harness.js';

/** hard: logits of ±80. barred: every third class cannot be (−∞), but for the target. */
export const subject: Subject = {
	name: 'crossEntropy',
	cases: [
		{ N: 1, V: 1 },
		{ N: 5, V: 7 },
		{ N: 70, V: 33 },
		{ N: 3, V: 1000, hard: 1 },
		{ N: 20, V: 17, hard: 1, barred: 1 },
		{ N: 6, V: 4097, barred: 1 },
		{ N: 3, V: 32_000 },
		{ N: 2, V: 32_000, hard: 1, barred: 1 },
	],
	inputs({ N, V, hard, barred }, random) {
		const logits = uniform([N!, V!], random, hard ? 80 : 4);
		const targets = Int32Array.from({ length: N! }, (_, n) => (n === 0 ? V! - 1 : Math.floor(((random() + 1) / 2) * V!)));
		for (let i = 0; barred && i < N! * V!; i += 3) if (i % V! !== targets[Math.floor(i / V!)]) logits.data[i] = -Infinity;
		return { logits, targets: { shape: [N!], data: targets } };
	},
	run: ({ logits, targets }) => ({ loss: crossEntropy(logits!, targets!) }),
	reference({ N, V }, { logits, targets }, precision) {
		const loss = precision.zeros(N!);
		const e = precision.zeros(1);
		for (let n = 0; n < N!; n++) {
			let top = -Infinity;
			for (let v = 0; v < V!; v++) top = Math.max(top, logits![n * V! + v]!);
			for (let v = 0; v < V!; v++) {
				e[0] = logits![n * V! + v]! - top;
				e[0] = Math.exp(e[0]!);
				loss[n] = loss[n]! + e[0]!;
			}
			loss[n] = Math.log(loss[n]!);
			e[0] = top - logits![n * V! + targets![n]!]!;
			loss[n] = loss[n]! + e[0]!;
		}
		return { loss };
	},
	bytes: ({ N, V }) => 4 * (N! * V! + 2 * N!),
	operations: ({ N, V }) => 4 * N! * V!,
	benchmarks: [
		{ N: 1, V: 32_000 },
		{ N: 256, V: 32_000 },
	],
};
