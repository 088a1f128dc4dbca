import { ArgumentError } from '../errors.js';
import { Module } from '../layers/module.js';
import { State } from '../layers/state.js';
import { attend } from '../ops/attend.js';
import { add, reshape } from '../ops/elementwise.js';
import { type FeatureMap, favor } from '../ops/favor.js';
import { linear } from '../ops/linear.js';
import { linearAttention } from '../ops/linear_attention.js';
import { rmsNorm } from '../ops/rms_norm.js';
import { rope } from '../ops/rope.js';
import { swiglu } from '../ops/swiglu.js';
import { zeros } from '../ops/zeros.js';
import { Tensor } from '../tensor.js';
import type { PerformerDecoderConfig } from './performerize_config.js';

/** Where the tokens of a pass stand: B sequences of T, and the angles of their positions `[B · T, D / 2, 2]`. */
export interface Places {
	readonly B: number;
	readonly T: number;
	readonly table: Tensor;
}

/** A linear map of the layer. */
interface LinearMap {
	readonly w: Tensor;
	readonly b: Tensor | null;
}

/** Seeds of two layers, or of a layer in two models, never meet. */
const LAYERS = 1024;

/**
 * A layer of a decoder of the LLaMA family, whose attention is FAVOR+ or exact. Parameters have Hugging Face's names.
 * @see Touvron et al. 2023, "LLaMA", section 2.2
 */
export class PerformerDecoderLayer extends Module {
	/** Null: exact attention. */
	readonly features: FeatureMap | null;
	readonly #config: PerformerDecoderConfig;
	readonly #window: number;
	readonly #q: LinearMap;
	readonly #k: LinearMap;
	readonly #v: LinearMap;
	readonly #o: LinearMap;
	readonly #attentionNorm: Tensor;
	readonly #feedForwardNorm: Tensor;
	readonly #gate: LinearMap;
	readonly #up: LinearMap;
	readonly #down: LinearMap;

	/** @param take the weight of a name, which is the layer's from then on */
	constructor(index: number, config: PerformerDecoderConfig, take: (name: string) => Tensor) {
		super();
		const { attention, featureKind, features, headDim, seed, biases } = config;
		this.#config = config;
		this.#window = config.slidingWindow[index] ?? Infinity;
		const one = (name: string) => this.parameter(name, take(`model.layers.${index}.${name}`));
		const projection = (name: 'q' | 'k' | 'v' | 'o'): LinearMap => ({
			w: one(`self_attn.${name}_proj.weight`),
			b: biases.includes(name) ? one(`self_attn.${name}_proj.bias`) : null,
		});
		const map = (name: string): LinearMap => ({ w: one(`mlp.${name}_proj.weight`), b: null });
		this.#attentionNorm = one('input_layernorm.weight');
		[this.#q, this.#k, this.#v, this.#o] = [projection('q'), projection('k'), projection('v'), projection('o')];
		this.#feedForwardNorm = one('post_attention_layernorm.weight');
		[this.#gate, this.#up, this.#down] = [map('gate'), map('up'), map('down')];
		const { device } = this.#attentionNorm;
		this.features =
			attention === 'softmax' ? null : favor({ kind: featureKind, dim: headDim, features, seed: seed * LAYERS + index, device });
		if (config.trainable === 'attention') {
			for (const [name, parameter] of this.parameters()) parameter.requiresGrad = name.startsWith('self_attn.');
		}
	}

	/** Nothing seen yet. */
	initialState(batch: number): State {
		const { kvHeads: G, headDim: D, features: M } = this.#config;
		const { device } = this;
		const c = Tensor.empty([batch, G], device, 'f32', new Float32Array(batch * G).fill(-Infinity));
		return new State('performer', batch, { c, z: zeros([batch, G, M], device), S: zeros([batch, G, M, D], device) });
	}

	/**
	 * @param x `[B · T, C]`
	 * @param state moved on
	 * @returns as x
	 */
	forward(x: Tensor, places: Places, state?: State): Tensor {
		const { epsilon } = this.#config;
		const mixed = add(x, this.#mix(rmsNorm(x, this.#attentionNorm, { epsilon }), places, state));
		const h = rmsNorm(mixed, this.#feedForwardNorm, { epsilon });
		return add(mixed, project(swiglu(project(h, this.#gate), project(h, this.#up)), this.#down));
	}

	#mix(h: Tensor, { B, T, table }: Places, state: State | undefined): Tensor {
		const { heads: H, kvHeads: G, headDim: D, rope: turning } = this.#config;
		const split = (y: Tensor, heads: number) => reshape(y, [B, T, heads, D]);
		const turned = (map: LinearMap, heads: number) => split(rope(reshape(project(h, map), [B * T, heads, D]), table, turning.pairs), heads);
		const q = turned(this.#q, H);
		const k = turned(this.#k, G);
		const v = split(project(h, this.#v), G);
		return project(reshape(this.#attend(q, k, v, state), [B * T, H * D]), this.#o);
	}

	#attend(q: Tensor, k: Tensor, v: Tensor, state: State | undefined): Tensor {
		const { features } = this;
		if (features) {
			if (!state) return linearAttention(q, k, v, { features, causal: true }).o;
			const before = { c: state.get('c'), z: state.get('z'), S: state.get('S') };
			state.length += q.shape[1]!;
			return linearAttention(q, k, v, { features, causal: true, state: before, inPlace: true }).o;
		}
		const T = q.shape[1]!;
		if (T > this.#window) {
			throw new ArgumentError(
				`PerformerDecoder.forward: sequences of ${T} tokens, expected at most the ${this.#window} that the model's softmax attention sees`,
			);
		}
		return attend(q, k, v, { causal: true });
	}

	override dispose(): void {
		this.features?.dispose();
		super.dispose();
	}
}

function project(x: Tensor, { w, b }: LinearMap): Tensor {
	return linear(x, w, b);
}
