import { join } from '../../lib/ops/join.js';
import { type Input, type Subject, uniform } from '../harness.js';

export const subject: Subject = {
	name: 'join',
	cases: [
		{ B: 1, H: 1, D: 1 },
		{ B: 2, H: 3, D: 5 },
		{ B: 4, H: 8, D: 64 },
		{ B: 5, H: 7, D: 33, hard: 1 },
		{ B: 30, H: 16, D: 32, hard: 1 },
	],
	inputs({ B, H, D, hard }, random) {
		const inputs: Record<string, Input> = {};
		for (const side of [1, 2]) {
			const m = uniform([B!, H!], random, hard ? 80 : 2).data;
			const u = uniform([B!, H!], random, 1, 2).data;
			const w = uniform([B!, H!, D!], random, 2).data;
			for (let i = 0; hard && i < m.length; i++) {
				if (random() > -0.4) continue;
				m[i] = -Infinity; // nothing yet
				u[i] = 0;
				w.fill(0, i * D!, (i + 1) * D!);
			}
			inputs[`m${side}`] = { shape: [B!, H!], data: m };
			inputs[`u${side}`] = { shape: [B!, H!], data: u };
			inputs[`w${side}`] = { shape: [B!, H!, D!], data: w };
		}
		return inputs;
	},
	run: ({ m1, u1, w1, m2, u2, w2 }) => ({ ...join({ m: m1!, u: u1!, w: w1! }, { m: m2!, u: u2!, w: w2! }) }),
	reference({ D }, { m1, u1, w1, m2, u2, w2 }, precision) {
		const m = precision.of(m1!.map((each, i) => Math.max(each, m2![i]!)));
		const u = precision.zeros(m.length);
		const w = precision.zeros(m.length * D!);
		const factor = precision.zeros(2);
		for (let i = 0; i < m.length; i++) {
			[m1!, m2!].forEach((side, which) => {
				factor[which] = side[i]! - m[i]!;
				factor[which] = m[i] === -Infinity ? 0 : Math.exp(factor[which]!);
			});
			u[i] = factor[0]! * u1![i]! + factor[1]! * u2![i]!;
			for (let at = i * D!; at < (i + 1) * D!; at++) w[at] = factor[0]! * w1![at]! + factor[1]! * w2![at]!;
		}
		return { m, u, w };
	},
	bytes: ({ B, H, D }) => 12 * B! * H! * (D! + 2),
	operations: ({ B, H, D }) => B! * H! * (3 * D! + 10),
	benchmarks: [{ B: 64, H: 8, D: 64 }],
};
