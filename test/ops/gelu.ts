import { gelu } from '../../lib/ops/gelu.js';
import { type Subject, uniform } from '../harness.js';

/** erf(x) = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!: all terms have one sign, so nothing cancels (Abramowitz & Stegun 7.1.6). */
function erf(x: number): number {
	let term = x;
	let sum = x;
	for (let n = 1; Math.abs(term) > 2 ** -60 * Math.abs(sum); n++) {
		term *= (2 * x * x) / (2 * n + 1);
		sum += term;
	}
	return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

export const subject: Subject = {
	name: 'gelu',
	cases: [{ n: 1 }, { n: 31 }, { n: 1000 }, { n: 50_001 }],
	inputs: ({ n }, random) => ({ x: uniform([n!], random, 7) }),
	run: ({ x }) => ({ y: gelu(x!) }),
	reference({ n }, { x }, precision) {
		const y = precision.of(x!.map((each) => each / Math.SQRT2));
		for (let i = 0; i < n!; i++) {
			y[i] = erf(y[i]!);
			y[i] = 1 + y[i]!;
			y[i] = (x![i]! / 2) * y[i]!;
		}
		return { y };
	},
	gradient({ n }, { x }, { y: g }, precision) {
		const dx = precision.of(x!.map((each) => each / Math.SQRT2));
		const density = precision.zeros(n!);
		for (let i = 0; i < n!; i++) {
			density[i] = (-x![i]! * x![i]!) / 2;
			density[i] = (Math.exp(density[i]!) * x![i]!) / Math.sqrt(2 * Math.PI);
			dx[i] = erf(dx[i]!);
			dx[i] = (1 + dx[i]!) / 2;
			dx[i] = dx[i]! + density[i]!;
			dx[i] = dx[i]! * g![i]!;
		}
		return { x: dx };
	},
	bytes: ({ n }) => 8 * n!,
	operations: ({ n }) => 20 * n!,
	benchmarks: [{ n: 1 << 22 }],
};
