import { binding } from '../binding.js';
import { layerNorm } from '../ops/layer_norm.js';
import { Tensor } from '../tensor.js';
import type { LayerOptions } from './linear.js';
import { Module } from './module.js';

export interface LayerNormOptions extends Pick<LayerOptions, 'device'> {
	/** Added to the variance. @default 1e-5 */
	readonly epsilon?: number;
}

/** (x − mean) / √(variance + ε) · weight + bias over the last dimension (Ba et al. 2016). */
export class LayerNorm extends Module {
	/** `[dim]`, 1 at first */
	readonly weight: Tensor;
	/** `[dim]`, 0 at first */
	readonly bias: Tensor;
	readonly epsilon: number;

	constructor(dim: number, options: LayerNormOptions = {}) {
		super();
		this.epsilon = options.epsilon ?? 1e-5;
		this.weight = this.parameter('weight', Tensor.empty([dim], options.device, 'f32', new Float32Array(dim).fill(1)));
		this.bias = this.parameter('bias', Tensor.empty([dim], options.device, 'f32', new Float32Array(dim)));
	}

	/** `forward` into memory that is there, without checks or a tape. @param x and `y`: `rows` rows */
	into(x: Tensor, y: Tensor, rows: number): void {
		const { weight, bias, epsilon } = this;
		binding.layerNorm(x.buffer, weight.buffer, bias.buffer, y.buffer, null, null, rows, weight.shape[0]!, epsilon);
	}

	/** @param x `[…, dim]` */
	forward(x: Tensor): Tensor {
		return layerNorm(x, this.weight, this.bias, { epsilon: this.epsilon });
	}
}
