import { foldQuery } from '../../lib/ops/fold_query.js';
import { type Subject, uniform } from '../harness.js';

export const subject: Subject = {
	name: 'foldQuery',
	cases: [
		{ H: 1, D: 1, C: 1 },
		{ H: 2, D: 5, C: 7 },
		{ H: 4, D: 32, C: 128, flat: 1 },
		{ H: 8, D: 64, C: 100 },
		{ H: 1, D: 128, C: 33 },
	],
	inputs: ({ H, D, C, flat }, random) => ({ q: uniform(flat ? [H! * D!] : [H!, D!], random), w: uniform([H! * D!, C!], random) }),
	run: ({ q, w }, { H }) => ({ a: foldQuery(q!, w!, H!) }),
	reference({ H, D, C }, { q, w }, precision) {
		const a = precision.zeros(H! * C!);
		for (let h = 0; h < H!; h++) {
			for (let c = 0; c < C!; c++) {
				const at = h * C! + c;
				for (let r = h * D!; r < (h + 1) * D!; r++) a[at] = a[at]! + q![r]! * w![r * C! + c]!;
				a[at] = a[at]! / Math.sqrt(D!);
			}
		}
		return { a };
	},
	gradient({ H, D, C }, { q, w }, { a: g }, precision) {
		const dq = precision.zeros(H! * D!);
		const dw = precision.zeros(H! * D! * C!);
		for (let r = 0; r < H! * D!; r++) {
			for (let c = 0; c < C!; c++) {
				const up = g![Math.floor(r / D!) * C! + c]!;
				dq[r] = dq[r]! + up * w![r * C! + c]!;
				dw[r * C! + c] = (up * q![r]!) / Math.sqrt(D!);
			}
			dq[r] = dq[r]! / Math.sqrt(D!);
		}
		return { q: dq, w: dw };
	},
	bytes: ({ H, D, C }) => 4 * (H! * D! * (C! + 1) + H! * C!),
	operations: ({ H, D, C }) => 2 * H! * D! * C!,
	benchmarks: [{ H: 8, D: 64, C: 512 }],
};
