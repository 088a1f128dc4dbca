import { Block } from '../../lib/layers/block.js';
import { Linear } from '../../lib/layers/linear.js';
import { Module } from '../../lib/layers/module.js';
import { meanSquaredError } from '../../lib/ops/loss.js';
import { Random } from '../../lib/random.js';
import { type Tensor, tensor } from '../../lib/tensor.js';
import type { Batch, Dataset } from '../../lib/train/fit.js';

/** Predicts the next value of a series at every value: small, with dropout, enough to train in a second. */
export class Next extends Module {
	readonly embed: Linear;
	readonly block: Block;
	readonly head: Linear;

	constructor(seed = 0, dropout = 0.1) {
		super();
		this.embed = this.part('embed', new Linear(1, 16, { seed }));
		this.block = this.part('block', new Block({ dim: 16, heads: 2, hidden: 32, norm: 'pre', dropout, seed: seed + 1 }));
		this.head = this.part('head', new Linear(16, 1, { seed: seed + 2 }));
	}

	forward(x: Tensor): Tensor {
		return this.head.forward(this.block.forward(this.embed.forward(x)));
	}

	loss({ x, y }: Batch): Tensor {
		return meanSquaredError(this.forward(x), y);
	}
}

/** The logistic map in chaos: nothing linear predicts it, and a parabola does exactly. Mean 0, variance 1. */
export function chaos(n: number, seed = 0): Float64Array {
	let x = 0.1 + 0.8 * new Random(seed).uniform();
	const raw = Float64Array.from({ length: n }, () => (x = 3.9 * x * (1 - x)));
	const mean = raw.reduce((sum, value) => sum + value, 0) / n;
	const std = Math.sqrt(raw.reduce((sum, value) => sum + (value - mean) ** 2, 0) / n);
	return raw.map((value) => (value - mean) / std);
}

/** Windows of 16 values, each with those that follow. */
export class Series implements Dataset {
	readonly length: number;
	readonly #values: Float64Array;

	constructor(values: Float64Array) {
		this.#values = values;
		this.length = Math.floor((values.length - 1) / 16);
	}

	batch(indices: readonly number[]): Batch {
		const at = (shift: number) => indices.flatMap((i) => [...this.#values.subarray(i * 16 + shift, (i + 1) * 16 + shift)]);
		return { x: tensor(at(0), [indices.length, 16, 1]), y: tensor(at(1), [indices.length, 16, 1]) };
	}
}

/** The least mean squared error of a straight line from one value to the next. */
export function linearError(values: Float64Array): number {
	const n = values.length - 1;
	const mean = (of: (i: number) => number) => Array.from({ length: n }, (_, i) => of(i)).reduce((sum, value) => sum + value, 0) / n;
	const mx = mean((i) => values[i]!);
	const my = mean((i) => values[i + 1]!);
	const covariance = mean((i) => (values[i]! - mx) * (values[i + 1]! - my));
	const slope = covariance / mean((i) => (values[i]! - mx) ** 2);
	return mean((i) => (values[i + 1]! - my - slope * (values[i]! - mx)) ** 2);
}
