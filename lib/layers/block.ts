import { noGrad } from '../autograd.js';
import { binding } from '../binding.js';
import { ArgumentError } from '../errors.js';
import { dropout } from '../ops/dropout.js';
import { add } from '../ops/elementwise.js';
import { gelu } from '../ops/gelu.js';
import { Random } from '../random.js';
import { scope, Tensor } from '../tensor.js';
import { Aaren } from './aaren.js';
import { CausalAttention, type CausalAttentionOptions } from './causal_attention.js';
import { LayerNorm } from './layer_norm.js';
import { Linear } from './linear.js';
import { checkToken, type ForwardOptions, type Mixer, type Recurrent, size } from './mixer.js';
import { Module } from './module.js';
import { PerformerAttention, type PerformerAttentionOptions } from './performer_attention.js';
import { Scratch } from './scratch.js';
import { State } from './state.js';

export type MixerName = 'aaren' | 'performer' | 'attention';

/** What only one mixer has (`features` of Performer, …) is for that one, and of no effect with another. */
export interface BlockOptions extends PerformerAttentionOptions, CausalAttentionOptions {
	/** Width of the feed-forward part. @default 4 · dim */
	readonly hidden?: number;
	/** @default 'aaren' */
	readonly mixer?: MixerName;
	/** Normalise after each residual sum (`post`, as the code that the paper built on) or before each part. @default 'post' */
	readonly norm?: 'post' | 'pre';
}

const mixers: Record<MixerName, new (options: BlockOptions) => Mixer> = {
	aaren: Aaren,
	performer: PerformerAttention,
	attention: CausalAttention,
};

/**
 * A Transformer block: mixer, residual, LayerNorm, GELU feed-forward, residual, LayerNorm. The residual adds the token
 * itself. Dropout acts on the attention's output, after its projection and after the feed-forward part.
 *
 * `new Block({dim: 512, heads: 8, hidden: 2048})` has 3,152,896 parameters; with `mixer: 'attention'` or `'performer'`
 * 3,152,384.
 */
export class Block extends Module implements Recurrent {
	readonly mixer: Mixer;
	readonly norm1: LayerNorm;
	readonly norm2: LayerNorm;
	readonly linear1: Linear;
	readonly linear2: Linear;
	readonly norm: 'post' | 'pre';
	readonly #rate: number;
	readonly #scratch: Scratch<'a' | 'b' | 'h' | 'g'>;

	constructor(options: BlockOptions) {
		super();
		const { dim, mixer = 'aaren', norm = 'post' } = options;
		if (!Object.hasOwn(mixers, mixer))
			throw new ArgumentError(`Block: mixer is ${mixer}, expected one of ${Object.keys(mixers).join(', ')}`);
		if (mixer === 'aaren' && (options.causal === false || options.rope))
			throw new ArgumentError(`Block: mixer is aaren with ${options.rope ? 'rope' : 'causal false'}, expected performer or attention`);
		if (norm !== 'post' && norm !== 'pre') throw new ArgumentError(`Block: norm is ${norm}, expected post or pre`);
		const place = { ...options, random: options.random ?? new Random(options.seed ?? 0) };
		const device = { ...(options.device && { device: options.device }) }; // not ε: that of the options is the features'
		this.mixer = this.part('mixer', new mixers[mixer](place));
		const hidden = size('Block', 'hidden', options.hidden ?? 4 * dim);
		this.norm1 = this.part('norm1', new LayerNorm(dim, device));
		this.linear1 = this.part('linear1', new Linear(dim, hidden, place));
		this.linear2 = this.part('linear2', new Linear(hidden, dim, place));
		this.norm2 = this.part('norm2', new LayerNorm(dim, device));
		this.norm = norm;
		this.#rate = this.mixer.dropout;
		this.#scratch = new Scratch({ a: dim, b: dim, h: hidden, g: hidden });
	}

	initialState(options: { readonly batch?: number } = {}): State {
		return this.mixer.initialState(options);
	}

	/** As `Mixer.forward`. @param x `[B, T, C]` @returns `[B, T, C]` */
	forward(x: Tensor, state?: State, options: ForwardOptions = {}): Tensor {
		this.check();
		if (!state || this.training) return this.#run(x, state, options);
		if (this.mixer.steps && !options.lengths && x.shape[1] === 1) return noGrad(() => this.#step(x, state));
		return noGrad(() => scope(() => this.#run(x, state, options)));
	}

	/** `#run` for one token of each sequence: see `Mixer.step`. */
	#step(x: Tensor, state: State): Tensor {
		const { mixer, norm1, norm2 } = this;
		checkToken('Block', x, mixer.dim);
		const B = x.shape[0]!;
		const { a, b } = this.#scratch.of(B, x.device);
		const y = Tensor.empty(x.shape, x.device);
		const sum = (p: Tensor, q: Tensor, into: Tensor) => binding.add(p.buffer, q.buffer, into.buffer, 1, B * mixer.dim);
		if (this.norm === 'pre') {
			norm1.into(x, a, B);
			mixer.step(a, state, b);
			sum(b, x, b);
			norm2.into(b, a, B);
			this.#feedInto(a, a, B);
			sum(b, a, y);
		} else {
			mixer.step(x, state, a);
			sum(a, x, a);
			norm1.into(a, b, B);
			this.#feedInto(b, a, B);
			sum(a, b, a);
			norm2.into(a, y, B);
		}
		return y;
	}

	/** y ← `#feed(x)`; y may be x. */
	#feedInto(x: Tensor, y: Tensor, B: number): void {
		const { h, g } = this.#scratch.of(B, x.device);
		this.linear1.into(x, h, B);
		binding.gelu(h.buffer, g.buffer, g.size);
		this.linear2.into(g, y, B);
	}

	#run(x: Tensor, state: State | undefined, options: ForwardOptions): Tensor {
		if (this.norm === 'pre') {
			const mixed = add(x, this.#drop(this.mixer.forward(this.norm1.forward(x), state, options)));
			return add(mixed, this.#feed(this.norm2.forward(mixed)));
		}
		const mixed = this.norm1.forward(add(x, this.#drop(this.mixer.forward(x, state, options))));
		return this.norm2.forward(add(mixed, this.#feed(mixed)));
	}

	override dispose(): void {
		this.#scratch.dispose();
		super.dispose();
	}

	#feed(x: Tensor): Tensor {
		return this.#drop(this.linear2.forward(gelu(this.linear1.forward(x))));
	}

	#drop(x: Tensor): Tensor {
		return this.training ? dropout(x, { rate: this.#rate, seed: this.drawSeed() }) : x;
	}
}

/** Blocks one after the other. */
export class Stack extends Module implements Recurrent {
	readonly blocks: readonly Block[];

	/** @param options of every block @param layers how many */
	constructor(layers: number, options: BlockOptions) {
		super();
		const random = options.random ?? new Random(options.seed ?? 0);
		this.blocks = Array.from({ length: size('Stack', 'layers', layers) }, (_, i) => this.part(`${i}`, new Block({ ...options, random })));
	}

	initialState(options: { readonly batch?: number } = {}): State {
		return new State(
			'stack',
			options.batch ?? 1,
			{},
			this.blocks.map((block) => block.initialState(options)),
		);
	}

	/** As `Mixer.forward`. @param x `[B, T, C]` @returns `[B, T, C]` */
	forward(x: Tensor, state?: State, options: ForwardOptions = {}): Tensor {
		this.check();
		if (!state || this.training) return this.#run(x, state, options);
		return noGrad(() => scope(() => this.#run(x, state, options)));
	}

	#run(x: Tensor, state: State | undefined, options: ForwardOptions): Tensor {
		state?.expect('Stack.forward', 'stack', x.shape[0]!);
		if (state && state.parts.length !== this.blocks.length) {
			throw new ArgumentError(`Stack.forward: the state is of ${state.parts.length} blocks, expected ${this.blocks.length}`);
		}
		const y = this.blocks.reduce((input, block, i) => block.forward(input, state?.parts[i], options), x);
		if (state) state.length += x.shape[1]!;
		return y;
	}
}
