import { noGrad } from '../autograd.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { scope, Tensor } from '../tensor.js';
import type { LayerOptions } from './linear.js';
import { Module } from './module.js';
import type { State } from './state.js';

export interface MixerOptions extends LayerOptions {
	/** Model width C. */
	readonly dim: number;
	/** Heads; `dim` must be a multiple. */
	readonly heads: number;
	/** Share of the attention's outputs dropped in training. @default 0 */
	readonly dropout?: number;
}

export interface ForwardOptions {
	/** `[B]` of i32: tokens at t ≥ lengths[b] are padding. @default none */
	readonly lengths?: Tensor;
}

/** Something with one call and three uses: a whole sequence, a piece, or a token after the ones that its state has seen. */
export interface Recurrent {
	forward(x: Tensor, state?: State, options?: ForwardOptions): Tensor;
	initialState(options?: { readonly batch?: number }): State;
}

/**
 * What tokens of a sequence learn of those before them: Aaren, PerformerAttention and CausalAttention are interchangeable.
 */
export abstract class Mixer extends Module implements Recurrent {
	readonly kind: string;
	readonly dim: number;
	readonly heads: number;
	readonly dropout: number;

	protected constructor(kind: string, options: MixerOptions) {
		super();
		this.kind = kind;
		this.dim = size(kind, 'dim', options.dim);
		this.heads = size(kind, 'heads', options.heads);
		if (this.dim % this.heads) throw new ArgumentError(`${kind}: dim is ${this.dim}, expected a multiple of heads (${this.heads})`);
		this.dropout = share(kind, options.dropout ?? 0);
	}

	/**
	 * All tokens at once (no state: the sequence starts here), or the tokens that follow those that `state` has seen. The
	 * state is moved on. Outside of training a call with a state is not recorded for gradients, however long the stream.
	 *
	 * @param x `[B, T, C]`
	 * @returns `[B, T, C]`; row t knows tokens up to t
	 */
	forward(x: Tensor, state?: State, options: ForwardOptions = {}): Tensor {
		this.check();
		if (!state || this.training) return this.mix(x, state, options.lengths);
		if (this.steps && !options.lengths && x.shape[1] === 1) return noGrad(() => this.#one(x, state));
		return noGrad(() => scope(() => this.mix(x, state, options.lengths)));
	}

	#one(x: Tensor, state: State): Tensor {
		checkToken(this.constructor.name, x, this.dim);
		const y = Tensor.empty(x.shape, x.device);
		this.step(x, state, y);
		return y;
	}

	/** Whether `step` is there. */
	get steps(): boolean {
		return false;
	}

	/**
	 * `mix` for one token of each sequence, `x` and `y` `[B, 1, C]` (see `checkToken`): the same operations and the same bits,
	 * without new tensors for what lies between. Outside of training, and with gradients off.
	 */
	step(_x: Tensor, _state: State, _y: Tensor): void {
		throw new Error(`${this.kind}: has no step`);
	}

	abstract initialState(options?: { readonly batch?: number }): State;

	protected abstract mix(x: Tensor, state: State | undefined, lengths: Tensor | undefined): Tensor;
}

/** @throws ShapeError or ArgumentError unless `x` is `[B, 1, C]` of f32, one token of each sequence */
export function checkToken(where: string, x: Tensor, C: number): void {
	const { shape, dtype } = x;
	if (shape.length === 3 && shape[1] === 1 && shape[2] === C && dtype === 'f32') return;
	if (dtype !== 'f32') throw new ArgumentError(`${where}.forward: \`x\` holds ${dtype}, expected f32`);
	throw new ShapeError(`${where}.forward: \`x\` has shape [${shape.join(', ')}], expected [B T C=${C}]`);
}

/** @throws ArgumentError unless `value` is an integer from 1 */
export function size(where: string, name: string, value: number): number {
	if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`${where}: ${name} is ${value}, expected an integer from 1`);
	return value;
}

/** @throws ArgumentError unless `value` is in [0, 1) */
export function share(where: string, value: number): number {
	if (!(value >= 0 && value < 1)) throw new ArgumentError(`${where}: dropout is ${value}, expected a number in [0, 1)`);
	return value;
}
