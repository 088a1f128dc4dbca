import { crossEntropy } from '../../lib/ops/cross_entropy.js';
import { type Subject, uniform } from '../harness.js';

/** hard: logits of ±80. barred: every third class cannot be (−∞), but for the target. ignored: rows that take no part hold NaN. */
export const subject: Subject = {
	name: 'crossEntropy',
	cases: [
		{ N: 1, V: 1 },
		{ N: 5, V: 7 },
		{ N: 70, V: 33 },
		{ N: 3, V: 1000, hard: 1 },
		{ N: 20, V: 17, hard: 1, barred: 1 },
		{ N: 6, V: 4097, barred: 1 },
		{ N: 1, V: 5, ignored: 1 },
		{ N: 40, V: 13, ignored: 1 },
		{ N: 9, V: 4097, ignored: 1, barred: 1 },
		{ N: 300, V: 500, ignored: 1 },
		{ N: 3, V: 32_000 },
		{ N: 2, V: 32_000, hard: 1, barred: 1 },
	],
	inputs({ N, V, hard, barred, ignored }, random) {
		const logits = uniform([N!, V!], random, hard ? 80 : 4);
		const targets = Int32Array.from({ length: N! }, (_, n) => (n === 0 ? V! - 1 : Math.floor(((random() + 1) / 2) * V!)));
		for (let i = 0; barred && i < N! * V!; i += 3) if (i % V! !== targets[Math.floor(i / V!)]) logits.data[i] = -Infinity;
		for (let n = 0; ignored && n < N!; n += 3) {
			targets[n] = -1;
			logits.data.fill(NaN, n * V!, (n + 1) * V!);
		}
		return { logits, targets: { shape: [N!], data: targets } };
	},
	run: ({ logits, targets }) => ({ loss: crossEntropy(logits!, targets!) }),
	reference({ N, V }, { logits, targets }, precision) {
		const loss = precision.zeros(N!);
		const e = precision.zeros(1);
		for (let n = 0; n < N!; n++) {
			if (targets![n] === -1) continue;
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
	gradient({ N, V }, { logits, targets }, { loss: g }, precision) {
		const dlogits = precision.zeros(N! * V!);
		const e = precision.zeros(V!);
		const sum = precision.zeros(1);
		for (let n = 0; n < N!; n++) {
			if (targets![n] === -1) continue;
			let top = -Infinity;
			for (let v = 0; v < V!; v++) top = Math.max(top, logits![n * V! + v]!);
			sum[0] = 0;
			for (let v = 0; v < V!; v++) {
				e[v] = logits![n * V! + v]! - top;
				e[v] = Math.exp(e[v]!);
				sum[0] = sum[0]! + e[v]!;
			}
			for (let v = 0; v < V!; v++) {
				e[v] = e[v]! / sum[0]!;
				e[v] = e[v]! - (v === targets![n] ? 1 : 0);
				dlogits[n * V! + v] = g![n]! * e[v]!;
			}
		}
		return { logits: dlogits };
	},
	bytes: ({ N, V }) => 4 * (N! * V! + 2 * N!),
	operations: ({ N, V }) => 4 * N! * V!,
	benchmarks: [
		{ N: 1, V: 32_000 },
		{ N: 256, V: 32_000 },
	],
};
