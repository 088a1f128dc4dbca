import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { linear } from '../ops/linear.js';
import { Random } from '../random.js';
import { Tensor } from '../tensor.js';
import { Module } from './module.js';

export interface LayerOptions {
	/** Of the initial weights. @default 0 */
	readonly seed?: number;
	/** Draws the initial weights instead of `seed`: lets the parts of a model share one sequence. */
	readonly random?: Random;
	/** @default 'cpu' */
	readonly device?: DeviceName;
}

export interface LinearOptions extends LayerOptions {
	/** @default true */
	readonly bias?: boolean;
}

/** y = x Wᵀ + b */
export class Linear extends Module {
	/** `[outputs, inputs]` */
	readonly weight: Tensor;
	/** `[outputs]` */
	readonly bias: Tensor | null;

	/** Weights and bias are drawn from the uniform distribution on ±1/√inputs, as PyTorch draws them. */
	constructor(inputs: number, outputs: number, options: LinearOptions = {}) {
		super();
		const random = options.random ?? new Random(options.seed ?? 0);
		const bound = 1 / Math.sqrt(inputs);
		const draw = (shape: number[], n: number) => {
			const data = Float32Array.from({ length: n }, () => (2 * random.uniform() - 1) * bound);
			return Tensor.empty(shape, options.device, 'f32', data);
		};
		this.weight = this.parameter('weight', draw([outputs, inputs], outputs * inputs));
		this.bias = options.bias === false ? null : this.parameter('bias', draw([outputs], outputs));
	}

	/** `forward` into memory that is there, without checks or a tape. @param x and `y`: `rows` rows */
	into(x: Tensor, y: Tensor, rows: number): void {
		const { weight, bias } = this;
		binding.linear(x.buffer, weight.buffer, bias?.buffer ?? null, y.buffer, rows, weight.shape[1]!, weight.shape[0]!);
	}

	/** @param x `[…, inputs]` @returns `[…, outputs]` */
	forward(x: Tensor): Tensor {
		return linear(x, this.weight, this.bias ?? undefined);
	}
}
