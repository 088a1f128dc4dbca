import fs from 'node:fs/promises';
import path from 'node:path';
import { noGrad } from '../../lib/autograd.js';
import { full } from '../../lib/cache/index.js';
import { memory, synchronize } from '../../lib/device.js';
import { type LlamaSizes, type Projection, weightShapes } from '../../lib/io/pretrained.js';
import type { StoredTensor } from '../../lib/io/safetensors.js';
import type { State } from '../../lib/layers/state.js';
import { Llama } from '../../lib/models/llama.js';
import type { PerformerDecoder } from '../../lib/models/performerize_decoder.js';
import type { Tokens } from '../../lib/models/tokens.js';
import { Random } from '../../lib/random.js';
import { scope } from '../../lib/tensor.js';
import { folderOf } from '../io/models.js';
import { madeSizes, madeTokenizer } from './llama/models.js';

export const sizes: LlamaSizes = { ...madeSizes, layers: 2 };

export interface Made {
	readonly sizes?: LlamaSizes;
	readonly biases?: readonly Projection[];
	readonly tied?: boolean;
	/** Queries and keys are this much smaller than what makes attention sharp. @default 0.5 */
	readonly gentle?: number;
	/** Changes numbers once they are drawn. */
	readonly alter?: (tensors: Map<string, Float32Array>) => void;
	/** Store matrices as bf16. */
	readonly half?: boolean;
	readonly config?: object;
}

/** A model made for the test, small and with scores that features can follow. */
export async function makeModel(options: Made = {}): Promise<Llama> {
	const { biases = [], tied = true, gentle = 0.5, alter, half = false } = options;
	const own = options.sizes ?? sizes;
	const random = new Random(11);
	const numbers = new Map<string, Float32Array>();
	const shapes = new Map([...weightShapes(own, biases), ...(tied ? [] : [['lm_head.weight', [own.vocabulary, own.dim]] as const])]);
	for (const [name, shape] of shapes) {
		const scale = (name.includes('embed') ? 1 : 1.6 / Math.sqrt(shape.at(-1)!)) * (/[qk]_proj.weight/.test(name) ? gentle : 1);
		const draw = () => (name.endsWith('norm.weight') ? 1 + 0.1 * random.normal() : (shape.length === 1 ? 0.3 : scale) * random.normal());
		numbers.set(name, Float32Array.from({ length: shape.reduce((n, side) => n * side, 1) }, draw));
	}
	alter?.(numbers);
	const tensors = new Map<string, StoredTensor>();
	for (const [name, shape] of shapes) {
		const data = numbers.get(name)!;
		const narrow = half && shape.length > 1;
		const bits = Uint16Array.from(new Uint32Array(data.buffer), (word) => word >>> 16);
		tensors.set(name, { dtype: narrow ? 'BF16' : 'F32', shape, data: new Uint8Array(narrow ? bits.buffer : data.buffer) });
	}
	const { dim, hidden, layers, heads, kvHeads, headDim, vocabulary } = own;
	const config = {
		...{ architectures: ['LlamaForCausalLM'], tie_word_embeddings: tied, bos_token_id: 1, eos_token_id: 2 },
		...{ hidden_size: dim, intermediate_size: hidden, num_hidden_layers: layers, num_attention_heads: heads, head_dim: headDim },
		...{ num_key_value_heads: kvHeads, vocab_size: vocabulary, max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10000 },
	};
	const place = await folderOf({ ...config, ...options.config }, tensors);
	const tokenizer = path.join(place, `tok${vocabulary}.bin`);
	await fs.writeFile(tokenizer, madeTokenizer());
	return Llama.load(place, { tokenizer });
}

/** Logits of every token, `[T, V]` by `Llama` itself. */
export async function logitsBy(model: Llama, tokens: ArrayLike<number>): Promise<Float32Array> {
	using session = model.session({ cache: full() });
	const all: Float32Array[] = [];
	for (let t = 0; t < tokens.length; t++) all.push((await session.next([tokens[t]!])).slice());
	return Float32Array.from(all.flatMap((row) => [...row]));
}

/** `forward`, read. */
export function logitsOf(
	model: PerformerDecoder,
	ids: Tokens,
	state?: State,
	options?: { readonly last?: boolean },
): Promise<Float32Array> {
	return noGrad(() => scope(() => ({ read: model.forward(ids, state, options).read() }))).read;
}

export async function weightsOf(model: PerformerDecoder): Promise<Record<string, readonly number[]>> {
	const read = [...model.parameters()].map(async ([name, parameter]) => [name, [...(await parameter.read())]] as const);
	return Object.fromEntries(await Promise.all(read));
}

export function randomTokens(count: number, seed: number, vocabulary = sizes.vocabulary): Int32Array {
	const random = new Random(seed);
	return Int32Array.from({ length: count }, () => random.integer(vocabulary));
}

export async function held(): Promise<number> {
	await synchronize(); // what is queued holds its buffers
	return memory().bytes;
}
