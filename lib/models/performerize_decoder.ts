import { noGrad } from '../autograd.js';
import type { DeviceName } from '../device.js';
import { ArgumentError } from '../errors.js';
import { Module, type Whole } from '../layers/module.js';
import { State } from '../layers/state.js';
import { crossEntropy } from '../ops/cross_entropy.js';
import { reshape, scale, slice, sum } from '../ops/elementwise.js';
import { embed } from '../ops/embed.js';
import { linear } from '../ops/linear.js';
import { rmsNorm } from '../ops/rms_norm.js';
import { rotations, twoFloats } from '../ops/rope.js';
import { zeros } from '../ops/zeros.js';
import { persist, scope, Tensor } from '../tensor.js';
import { registerModel } from '../train/save.js';
import { checkConfig, type PerformerDecoderConfig, parameterShapes } from './performerize_config.js';
import { PerformerDecoderLayer } from './performerize_layer.js';
import { PerformerStream } from './performerize_stream.js';
import { type TokenBatch, type Tokens, tokenRows } from './tokens.js';

/**
 * A pretrained decoder with FAVOR+ in place of softmax attention (or with its own attention, to compare with), as a model to be trained:
 * all weights are f32 parameters under Hugging Face's names. Made by `Llama.performerize`, by `loadModel` or from a config (with weights
 * of 0).
 *
 * What it has seen is (c, z, S) a layer and key-value head, of one size however many tokens there were. A sliding window of the
 * pretrained model has no counterpart: FAVOR+ sees everything.
 * @example
 * using performer = await model.performerize({ features: 256, redrawEvery: 100 });
 * for await (const { step, loss } of fit(performer, texts, { epochs: 1, batch: 16, rate: 1e-3 })) console.log(step, loss);
 * @see Choromanski et al. 2021, "Rethinking attention with Performers", section 4.2 (backwards compatibility)
 */
export class PerformerDecoder extends Module {
	readonly kind = 'performer-decoder';
	readonly config: PerformerDecoderConfig;
	readonly #embedding: Tensor;
	readonly #layers: readonly PerformerDecoderLayer[];
	readonly #norm: Tensor;
	readonly #head: Tensor;
	readonly #frequencies: Tensor;
	/** Training steps since Ω was drawn. */
	readonly #drawAge: Whole = { value: 0, below: 2 ** 32 };

	/** @param options.take the weight of a name, f32, which is the model's from then on. @default zeros */
	constructor(config: PerformerDecoderConfig, options: { readonly device?: DeviceName; readonly take?: (name: string) => Tensor } = {}) {
		super();
		checkConfig(config);
		const { device = 'cpu' } = options;
		this.config = config;
		const shapes = new Map(parameterShapes(config));
		const take = options.take ?? ((name: string) => zeros(shapes.get(name)!, device));
		const one = (name: string) => this.parameter(name, take(name));
		this.#embedding = one('model.embed_tokens.weight');
		this.#layers = Array.from({ length: config.layers }, (_, i) =>
			this.part(`model.layers.${i}`, new PerformerDecoderLayer(i, config, take)),
		);
		this.#norm = one('model.norm.weight');
		this.#head = config.tied ? this.#embedding : one('lm_head.weight');
		if (config.trainable === 'attention') for (const each of [this.#embedding, this.#norm, this.#head]) each.requiresGrad = false;
		const model = this;
		this.whole('draw', {
			get value() {
				return model.draw;
			},
			set value(draw) {
				model.#setDraw(draw);
			},
			below: 2 ** 32,
		});
		this.whole('drawAge', this.#drawAge);
		const { frequencies } = config.rope;
		this.#frequencies = persist(Tensor.empty([frequencies.length, 2], device, 'f32', twoFloats(frequencies)));
	}

	/** Which of the seed's draws Ω is, from 0. */
	get draw(): number {
		return this.#layers[0]!.features?.draw ?? 0;
	}

	/** Take the next Ω in every layer. States from before are refused from then on. */
	redraw(): void {
		this.check();
		this.#setDraw(this.draw + 1);
		this.#drawAge.value = 0;
	}

	#setDraw(draw: number): void {
		for (const { features } of this.#layers) if (features) features.draw = draw;
	}

	protected override beginStep(): void {
		const { redrawEvery, attention } = this.config;
		if (redrawEvery === 0 || attention === 'softmax') return;
		if (this.#drawAge.value >= redrawEvery) this.redraw();
		this.#drawAge.value++;
	}

	/** A state before the first token. @param options.batch sequences side by side @default 1 */
	initialState({ batch = 1 }: { readonly batch?: number } = {}): State {
		this.check();
		if (this.config.attention === 'softmax') {
			throw new ArgumentError('PerformerDecoder.initialState: exact attention has no state of a fixed size, expected attention favor');
		}
		if (!Number.isInteger(batch) || batch < 1) {
			throw new ArgumentError(`PerformerDecoder.initialState: batch is ${batch}, expected an integer from 1`);
		}
		const parts = this.#layers.map((layer) => layer.initialState(batch));
		return new State(this.kind, batch, {}, parts, 0, { seed: this.config.seed, draw: this.draw });
	}

	/** Features of another Ω mean nothing to a state. */
	#checkState(state: State, batch: number): void {
		state.expect('PerformerDecoder.forward', this.kind, batch);
		const { seed, draw } = state.about ?? {};
		if (seed === this.config.seed && draw === this.draw) return;
		throw new ArgumentError(
			`PerformerDecoder.forward: the state is of draw ${draw} of seed ${seed}, expected draw ${this.draw} of seed ${this.config.seed}`,
		);
	}

	/**
	 * Logits of what follows each token, given those up to it.
	 * @param ids of one sequence, or a list for each of B, all of one length T
	 * @param state what came before; moved on. Not in training. @default nothing came before
	 * @param options.last only those after the last token are wanted: T becomes 1 in the result
	 * @returns `[B, T, V]`
	 */
	forward(ids: Tokens, state?: State, options: { readonly last?: boolean } = {}): Tensor {
		this.check();
		const { last = false } = options;
		if (!state) return this.#run(ids, undefined, last);
		if (this.training) throw new ArgumentError('PerformerDecoder.forward: a state in training, expected whole sequences');
		return noGrad(() => scope(() => this.#run(ids, state, last)));
	}

	/** The mean of −ln p over all targets but those of −1, which do not count. */
	loss({ x, y }: TokenBatch): Tensor {
		const { list, B, T } = tokenRows('PerformerDecoder.loss: y', y, this.config.vocabulary, -1);
		const counted = list.reduce((n, target) => n + (target >= 0 ? 1 : 0), 0);
		if (counted === 0) throw new ArgumentError('PerformerDecoder.loss: all targets are -1, expected one that counts');
		const logits = this.forward(x);
		if (logits.shape[0] !== B || logits.shape[1] !== T) {
			throw new ArgumentError(`PerformerDecoder.loss: y is [${B}, ${T}], expected [${logits.shape[0]}, ${logits.shape[1]}] as x`);
		}
		return scale(sum(crossEntropy(reshape(logits, [B * T, this.config.vocabulary]), list), 0), 1 / counted);
	}

	/** A sequence that is fed piece by piece, and goes on by itself (`generate`), in constant memory. */
	stream(): PerformerStream {
		return new PerformerStream(this);
	}

	#run(ids: Tokens, state: State | undefined, last: boolean): Tensor {
		const { epsilon, dim, vocabulary } = this.config;
		const { list, B, T } = tokenRows('PerformerDecoder.forward', ids, vocabulary);
		if (state) this.#checkState(state, B);
		const places = { B, T, table: this.#turns(B, T, state?.length ?? 0) };
		let x = embed(list, this.#embedding);
		for (const [i, layer] of this.#layers.entries()) x = layer.forward(x, places, state?.parts[i]);
		if (state) state.length += T;
		const wanted = last ? slice(reshape(x, [B, T, dim]), 1, T - 1, T) : reshape(x, [B, T, dim]);
		return linear(rmsNorm(wanted, this.#norm, { epsilon }), this.#head);
	}

	/** Cosines and sines of T positions from `first` on, for each of B sequences. */
	#turns(B: number, T: number, first: number): Tensor {
		if (first + T > 2 ** 31) throw new ArgumentError(`PerformerDecoder.forward: ${first + T} tokens in all, expected at most 2³¹`);
		const positions = Int32Array.from({ length: B * T }, (_, i) => first + (i % T));
		return rotations(Tensor.empty([B * T], this.device, 'i32', positions), this.#frequencies, { magnitude: this.config.rope.magnitude });
	}

	override dispose(): void {
		this.#frequencies.dispose();
		super.dispose();
	}
}

registerModel('performer-decoder', (config: PerformerDecoderConfig, options) => new PerformerDecoder(config, options));
