import { noGrad } from '../autograd.js';
import type { DeviceName } from '../device.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Stack } from '../layers/block.js';
import { LayerNorm } from '../layers/layer_norm.js';
import { Linear } from '../layers/linear.js';
import type { ForwardOptions } from '../layers/mixer.js';
import { Module } from '../layers/module.js';
import type { State } from '../layers/state.js';
import { crossEntropy } from '../ops/cross_entropy.js';
import { reshape, scale, slice, sum } from '../ops/elementwise.js';
import { embed } from '../ops/embed.js';
import { lengths as lengthsOf } from '../ops/lengths.js';
import { Random } from '../random.js';
import { scope, Tensor } from '../tensor.js';
import { registerModel } from '../train/save.js';
import { checkedConfig, type FullPerformerConfig, type PerformerConfig } from './performer_config.js';
import { type TokenBatch, type Tokens, tokenRows } from './tokens.js';

export interface PerformerBatch extends TokenBatch {
	/** Tokens of each sequence that count, `[B]`; those behind are padding that no token sees. @default all */
	readonly lengths?: ArrayLike<number>;
}

export interface PerformerForwardOptions {
	/** Only the logits of the last token are wanted: T becomes 1 in the result. @default false */
	readonly last?: boolean;
	/** As in `PerformerBatch`. Not with a state. */
	readonly lengths?: ArrayLike<number> | undefined;
}

/**
 * A language model over tokens: embedding, a stack of blocks, a last LayerNorm, and a linear head with weights of its own.
 *
 * Causal, it says of each token which one follows, and can be fed token by token, with Performer or Aaren in constant memory.
 * With `causal: false` every token sees all others, and it says what stands where a token was masked (Devlin et al. 2019,
 * "BERT", section 3.1): what is masked, and what is asked, is up to the batches.
 *
 * `mixer: 'attention'` is the Transformer of the same parameters, to compare with.
 * @see Choromanski et al. 2021, "Rethinking attention with Performers"
 * @example
 * using model = new Performer({ vocabulary: 30, dim: 128, layers: 3, heads: 4 });
 * for await (const { step, loss } of fit(model, data, { epochs: 1, batch: 16, rate: 1e-3 })) console.log(step, loss);
 */
export class Performer extends Module {
	readonly kind = 'performer';
	readonly config: FullPerformerConfig;
	/** `[V, C]` */
	readonly embedding: Tensor;
	readonly stack: Stack;
	readonly norm: LayerNorm;
	readonly head: Linear;

	constructor(config: PerformerConfig, options: { readonly device?: DeviceName } = {}) {
		super();
		this.config = checkedConfig(config);
		const { vocabulary, dim, layers, seed, ...rest } = this.config;
		const random = new Random(seed);
		const place = { random, device: options.device ?? 'cpu' };
		const initial = Float32Array.from({ length: vocabulary * dim }, () => random.normal());
		this.embedding = this.parameter('embedding', Tensor.empty([vocabulary, dim], place.device, 'f32', initial));
		this.stack = this.part('stack', new Stack(layers, { ...rest, dim, ...place }));
		this.norm = this.part('norm', new LayerNorm(dim, place));
		this.head = this.part('head', new Linear(dim, vocabulary, place));
	}

	/** What a stream keeps, causal models only. @param options.batch sequences side by side @default 1 */
	initialState(options: { readonly batch?: number } = {}): State {
		this.check();
		return this.stack.initialState(options);
	}

	/**
	 * @param ids of one sequence, or a list for each of B, all of one length T
	 * @param state what came before; moved on @default nothing came before
	 * @returns `[B, T, V]` logits: of what follows each token, or without `causal` of what stands in its place
	 * @throws ArgumentError if a number is no token of the vocabulary
	 */
	forward(ids: Tokens, state?: State, options: PerformerForwardOptions = {}): Tensor {
		this.check();
		const tokens = tokenRows('Performer.forward', ids, this.config.vocabulary);
		if (!state || this.training) return this.#run(tokens, state, options);
		return noGrad(() => scope(() => this.#run(tokens, state, options)));
	}

	/** The mean of −ln p of the targets; of −1 it is not asked, and a batch without any other target has loss 0. */
	loss({ x, y, lengths }: PerformerBatch): Tensor {
		const { vocabulary } = this.config;
		const { list, B, T } = tokenRows('Performer.loss: y', y, vocabulary, -1);
		const logits = this.forward(x, undefined, { lengths });
		if (logits.shape[0] !== B || logits.shape[1] !== T)
			throw new ShapeError(`Performer.loss: y is [${B}, ${T}], expected [${logits.shape.slice(0, 2).join(', ')}] as x`);
		const asked = list.reduce((n, target) => n + (target < 0 ? 0 : 1), 0);
		return scale(sum(crossEntropy(reshape(logits, [B * T, vocabulary]), list), 0), 1 / Math.max(1, asked));
	}

	#run({ list, B, T }: ReturnType<typeof tokenRows>, state: State | undefined, options: PerformerForwardOptions): Tensor {
		const { last = false, lengths } = options;
		const x = reshape(embed(list, this.embedding), [B, T, this.config.dim]);
		const mixed = this.stack.forward(x, state, lengths && this.#padding(lengths, B, T, state));
		return this.head.forward(this.norm.forward(last ? slice(mixed, 1, T - 1, T) : mixed));
	}

	#padding(lengths: ArrayLike<number>, B: number, T: number, state: State | undefined): ForwardOptions {
		const where = 'Performer.forward: lengths';
		if (state) throw new ArgumentError(`${where} together with a state, expected one of them`);
		const list = Array.from(lengths);
		const wrong = list.find((length) => !Number.isInteger(length) || length < 0 || length > T);
		if (list.length !== B) throw new ArgumentError(`${where} are ${list.length} numbers, expected ${B}, one a sequence`);
		if (wrong !== undefined) throw new ArgumentError(`${where} hold ${wrong}, expected integers from 0 to ${T}`);
		return { lengths: lengthsOf(list, this.device) };
	}
}

registerModel('performer', (config: PerformerConfig, options) => new Performer(config, options));
