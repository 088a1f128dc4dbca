import { meanSquaredError } from '../../lib/ops/loss.js';
import { type Subject, uniform } from '../harness.js';

export const subject: Subject = {
	name: 'meanSquaredError',
	cases: [{ n: 1 }, { n: 5 }, { n: 32 }, { n: 1001 }, { n: 40_000 }],
	inputs: ({ n }, random) => ({ x: uniform([n!], random), y: uniform([n!], random) }),
	run: ({ x, y }) => ({ loss: meanSquaredError(x!, y!) }),
	reference({ n }, { x, y }, precision) {
		const loss = precision.zeros(1);
		for (let i = 0; i < n!; i++) loss[0] = loss[0]! + (x![i]! - y![i]!) ** 2;
		loss[0] = loss[0]! / n!;
		return { loss };
	},
	gradient({ n }, { x, y }, { loss: g }, precision) {
		const dx = precision.zeros(n!);
		for (let i = 0; i < n!; i++) {
			dx[i] = x![i]! - y![i]!;
			dx[i] = dx[i]! * 2 * g![0]!;
			dx[i] = dx[i]! / n!;
		}
		return { x: dx, y: precision.of(dx.map((each) => -each)) };
	},
	bytes: ({ n }) => 8 * n!,
	operations: ({ n }) => 3 * n!,
	benchmarks: [{ n: 1 << 22 }],
};
