import { noGrad } from '../autograd.js';
import type { DeviceName } from '../device.js';
import { ArgumentError } from '../errors.js';
import type { LlamaConfig, Projection } from '../io/pretrained.js';
import { reshape } from '../ops/elementwise.js';
import { embed } from '../ops/embed.js';
import type { FavorKind } from '../ops/favor.js';
import { persist, scope, Tensor } from '../tensor.js';
import type { LayerWeights, LlamaWeights } from './llama_weights.js';
import {
	checkConfig,
	type DecoderAttention,
	type PerformerDecoderConfig,
	parameterShapes,
	type TrainablePart,
} from './performerize_config.js';
import { PerformerDecoder } from './performerize_decoder.js';

export interface PerformerizeOptions {
	/** M, features of a token: more are nearer to the original attention (the error falls as 1/√M). @default 256 */
	readonly features?: number | undefined;
	/** What features stand for: `softmax` is what the model was trained with; the generalised kinds have to be learned. @default 'softmax' */
	readonly kind?: FavorKind | undefined;
	/** Steps of training between two draws of Ω; 0: the first draw stays. @default 0 */
	readonly redrawEvery?: number | undefined;
	/** Of Ω, an integer in [0, 2³²). @default 0 */
	readonly seed?: number | undefined;
	/** Which parameters learn: all, or those of attention's linear maps (query, key, value, output). @default 'all' */
	readonly trainable?: TrainablePart | undefined;
	/** `softmax`: exact attention, for the original model to be trained and judged in the same way. @default 'favor' */
	readonly attention?: DecoderAttention | undefined;
	/** @default where the pretrained model is */
	readonly device?: DeviceName | undefined;
}

/** `Llama.performerize`. */
export async function performerize(
	weights: LlamaWeights,
	config: LlamaConfig,
	device: DeviceName,
	options: PerformerizeOptions,
): Promise<PerformerDecoder> {
	if (typeof options !== 'object' || options === null) {
		throw new ArgumentError(`performerize: options are ${options}, expected { features, … }`);
	}
	const described = describe(weights, config, options);
	checkConfig(described); // before anything is copied
	const target = options.device ?? device;
	const copies = new Map<string, Tensor>();
	try {
		for (const [name] of parameterShapes(described)) copies.set(name, await copy(weightOf(weights, name), target));
		return new PerformerDecoder(described, { device: target, take: (name) => copies.get(name)! });
	} catch (error) {
		for (const tensor of copies.values()) tensor.dispose();
		throw error;
	}
}

function describe({ embedding, head, layers }: LlamaWeights, config: LlamaConfig, options: PerformerizeOptions): PerformerDecoderConfig {
	const { features = 256, kind = 'softmax', redrawEvery = 0, seed = 0, trainable = 'all', attention = 'favor' } = options;
	const { dim, hidden, heads, kvHeads, headDim, vocabulary, epsilon, slidingWindow, bos, eos } = config;
	const { pairs, frequencies, magnitude } = config.rope;
	return {
		...{ dim, hidden, layers: layers.length, heads, kvHeads, headDim, vocabulary, epsilon },
		...{ attention, featureKind: kind, features, redrawEvery, seed, trainable },
		rope: { pairs, frequencies: [...frequencies], magnitude },
		tied: head.w === embedding.w,
		biases: (['q', 'k', 'v', 'o'] satisfies Projection[]).filter((name) => layers[0]?.[name].b),
		...{ slidingWindow: [...slidingWindow], bos, eos: [...eos] },
	};
}

/** Where in a layer the weights of a name are. */
const places: Readonly<Record<string, Exclude<keyof LayerWeights, 'attentionNorm' | 'feedForwardNorm'>>> = {
	...{ 'self_attn.q_proj': 'q', 'self_attn.k_proj': 'k', 'self_attn.v_proj': 'v', 'self_attn.o_proj': 'o' },
	...{ 'mlp.gate_proj': 'gate', 'mlp.up_proj': 'up', 'mlp.down_proj': 'down' },
};

/** The tensor of a name of `parameterShapes`. */
function weightOf({ embedding, head, norm, layers }: LlamaWeights, name: string): Tensor {
	if (name === 'model.embed_tokens.weight') return embedding.w;
	if (name === 'lm_head.weight') return head.w;
	if (name === 'model.norm.weight') return norm;
	const [, index, part, which] = /^model\.layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(name)!;
	const layer = layers[Number(index)]!;
	if (part === 'input_layernorm') return layer.attentionNorm;
	if (part === 'post_attention_layernorm') return layer.feedForwardNorm;
	const { w, b } = layer[places[part!]!];
	return which === 'bias' ? b! : w;
}

/** The same numbers in f32 and in memory of their own, whatever they are stored in: the rows of a table, all of them. */
async function copy(w: Tensor, device: DeviceName): Promise<Tensor> {
	const table = w.shape.length === 1 ? [1, w.shape[0]!] : w.shape;
	const rows = Int32Array.from({ length: table[0]! }, (_, row) => row);
	const wide = persist(noGrad(() => scope(() => reshape(embed(rows, w.view(table)), w.shape))));
	if (wide.device === device) return wide;
	try {
		return persist(Tensor.empty(w.shape, device, 'f32', await wide.read()));
	} finally {
		wide.dispose();
	}
}
