import { FormatError } from '../errors.js';
import { readBytes } from './bytes.js';
import { Fields, openFile } from './fields.js';
import {
	checkSizes,
	gatherWeights,
	type LlamaConfig,
	type LlamaSizes,
	limits,
	type PretrainedFiles,
	type StoredWeight,
} from './pretrained.js';
import { ropeFrequencies } from './rope.js';

/** `ak42` as a number: how the exports from version 1 on begin. The first export has no mark. */
export const llama2cMagic = 0x616b3432;

const legacyHeader = 28;
const v1Header = 256;

/** A run of tensors of one kind, one a layer (`{i}` in the name) or a single one. */
type Run = readonly [name: string, shape: readonly number[]];

/**
 * Open a model of llama2.c (karpathy/llama2.c, export.py): f32, either the first export, without a mark, or version 1. Quantised exports
 * (version 2) are refused. The files do not say it: θ is 10,000, ε is 10⁻⁵, token 1 begins a text and ends it as well as 2.
 * @throws FormatError
 */
export async function openLlama2c(path: string): Promise<PretrainedFiles> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	if (size < legacyHeader) throw new FormatError(path, `the file has ${size} bytes, expected a header of at least ${legacyHeader}`);
	const head = await readBytes(path, file, 0, Math.min(size, v1Header));
	const marked = head.readUInt32LE(0) === llama2cMagic;
	const { sizes, context, separate } = marked ? readV1(path, head) : readLegacy(path, head);
	checkSizes(path, sizes);
	const places = new Map<string, StoredWeight>();
	let offset = marked ? v1Header : legacyHeader;
	for (const [name, shape] of marked ? v1Order(sizes, separate) : legacyOrder(sizes, context, separate)) {
		const bytes = 4 * shape.reduce((n, side) => n * side, 1);
		for (let i = 0; i < (name.includes('{i}') ? sizes.layers : 1); i++) {
			places.set(name.replace('{i}', String(i)), { type: 'f32', shape, path, offset, bytes });
			offset += bytes;
		}
	}
	if (offset !== size) {
		throw new FormatError(path, `the file has ${size} bytes, expected ${offset} from the sizes in its header`, { offset: 0 });
	}
	const weights = gatherWeights(path, sizes, { tied: !separate, biases: [], find: (name) => places.get(name) ?? null });
	const theta = 10_000;
	const config: LlamaConfig = {
		architecture: 'LlamaForCausalLM',
		...sizes,
		context,
		epsilon: 1e-5,
		rope: { theta, pairs: 'neighbours', ...ropeFrequencies(sizes.headDim, theta, null) },
		slidingWindow: Array.from({ length: sizes.layers }, () => null),
		bos: 1,
		eos: [1, 2],
	};
	return { path, format: 'llama2c', config, weights, metadata: null };
}

interface Header {
	readonly sizes: LlamaSizes;
	readonly context: number;
	/** The last linear map is not the embedding. */
	readonly separate: boolean;
}

/** Seven int32; a negative vocabulary says that the last linear map has weights of its own. */
function readLegacy(path: string, head: Buffer): Header {
	const vocabulary = head.readInt32LE(20);
	// Anything might come without a mark, so that it is the first export is only believed if all of it could be.
	const guess = Array.from({ length: 7 }, (_, i) => (i === 5 ? Math.abs(vocabulary) : head.readInt32LE(4 * i)));
	if (guess.some((n) => n < 1 || n > limits.side) || guess[2]! > limits.layers) {
		throw new FormatError(path, 'this is no GGUF and no export of llama2.c, expected one of them or a folder of Hugging Face', {
			offset: 0,
		});
	}
	return { ...readSizes(path, head, 0, Math.abs(vocabulary)), separate: vocabulary < 0 };
}

/** The mark, the version, the same seven int32, one byte: whether the last linear map is the embedding. */
function readV1(path: string, head: Buffer): Header {
	const version = head.readInt32LE(4);
	if (version === 2) throw new FormatError(path, 'the export is of version 2 (int8, q80), expected version 1 (f32)', { offset: 4 });
	if (version !== 1) throw new FormatError(path, `the export is of version ${version}, expected 1`, { offset: 4 });
	if (head.length < v1Header) throw new FormatError(path, `the header ends here, expected ${v1Header} bytes`, { offset: head.length });
	const shared = head[36]!;
	if (shared > 1) throw new FormatError(path, `whether the last map is the embedding is ${shared}, expected 0 or 1`, { offset: 36 });
	return { ...readSizes(path, head, 8, head.readInt32LE(28)), separate: shared === 0 };
}

function readSizes(path: string, head: Buffer, start: number, vocabulary: number): Pick<Header, 'sizes' | 'context'> {
	const [dim, hidden, layers, heads, kvHeads, , context] = Array.from({ length: 7 }, (_, i) => head.readInt32LE(start + 4 * i));
	const fields = new Fields(path, {
		dim,
		hidden_dim: hidden,
		n_layers: layers,
		n_heads: heads,
		n_kv_heads: kvHeads,
		vocab_size: vocabulary,
		max_seq_len: context,
	});
	const side = { most: limits.side };
	const sizes = {
		dim: fields.integer('dim', side),
		hidden: fields.integer('hidden_dim', side),
		layers: fields.integer('n_layers', { most: limits.layers }),
		heads: fields.integer('n_heads', side),
		kvHeads: fields.integer('n_kv_heads', side),
		vocabulary: fields.integer('vocab_size', side),
	};
	if (sizes.dim % sizes.heads !== 0) throw fields.refuse('dim', `a multiple of the ${sizes.heads} heads`);
	const length = fields.integer('max_seq_len', { most: limits.context });
	return { sizes: { ...sizes, headDim: sizes.dim / sizes.heads }, context: length };
}

function runs({ dim, hidden, heads, kvHeads, headDim, vocabulary }: LlamaSizes) {
	const layer = 'model.layers.{i}.';
	return {
		embedding: ['model.embed_tokens.weight', [vocabulary, dim]],
		attentionNorms: [`${layer}input_layernorm.weight`, [dim]],
		q: [`${layer}self_attn.q_proj.weight`, [heads * headDim, dim]],
		k: [`${layer}self_attn.k_proj.weight`, [kvHeads * headDim, dim]],
		v: [`${layer}self_attn.v_proj.weight`, [kvHeads * headDim, dim]],
		o: [`${layer}self_attn.o_proj.weight`, [dim, heads * headDim]],
		feedForwardNorms: [`${layer}post_attention_layernorm.weight`, [dim]],
		gate: [`${layer}mlp.gate_proj.weight`, [hidden, dim]],
		down: [`${layer}mlp.down_proj.weight`, [dim, hidden]],
		up: [`${layer}mlp.up_proj.weight`, [hidden, dim]],
		norm: ['model.norm.weight', [dim]],
		head: ['lm_head.weight', [vocabulary, dim]],
	} as const satisfies Record<string, Run>;
}

function legacyOrder(sizes: LlamaSizes, context: number, separate: boolean): Run[] {
	const { embedding, attentionNorms, q, k, v, o, feedForwardNorms, gate, down, up, norm, head } = runs(sizes);
	// Tables of cosines and sines, which nobody reads: they follow from the sizes.
	const tables: Run[] = ['cosines', 'sines'].map((name) => [name, [context, sizes.headDim / 2]]);
	return [embedding, attentionNorms, q, k, v, o, feedForwardNorms, gate, down, up, norm, ...tables, ...(separate ? [head] : [])];
}

function v1Order(sizes: LlamaSizes, separate: boolean): Run[] {
	const { embedding, attentionNorms, q, k, v, o, feedForwardNorms, gate, down, up, norm, head } = runs(sizes);
	return [attentionNorms, feedForwardNorms, norm, embedding, q, k, v, o, gate, down, up, ...(separate ? [head] : [])];
}
