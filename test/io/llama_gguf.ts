import fs from 'node:fs/promises';
import { ggufName } from '../../lib/io/gguf.js';
import { blocks, type PretrainedFiles, type WeightType } from '../../lib/io/pretrained.js';
import { dequantize } from './dequantize.js';
import { type GgufTensorData, type GgufValue, ggufBytes } from './gguf_writer.js';
import { quantize } from './quantize.js';

/** The numbers of a weight, widened to f32. */
export async function weightNumbers(files: PretrainedFiles, name: string): Promise<Float32Array> {
	const { type, path, offset, bytes } = files.weights.get(name)!;
	await using file = await fs.open(path);
	const data = new Uint8Array(bytes);
	await file.read(data, 0, bytes, offset);
	return dequantize(type, data);
}

/** Rows of queries or keys [heads · D, C], whose pairs were halves of a head, as the converter of llama.cpp reorders them to neighbours. */
export function halvesToNeighbours(x: Float32Array, heads: number, headDim: number): Float32Array {
	const y = new Float32Array(x.length);
	const width = x.length / (heads * headDim);
	for (let h = 0; h < heads; h++) {
		for (let i = 0; i < headDim; i++) {
			const from = h * headDim + i;
			const to = h * headDim + (i < headDim / 2 ? 2 * i : 2 * (i - headDim / 2) + 1);
			y.set(x.subarray(from * width, (from + 1) * width), to * width);
		}
	}
	return y;
}

/**
 * A model of architecture llama as a GGUF, as llama.cpp's converter writes it: matrices of the type (of f16 where rows are no whole blocks),
 * vectors in f32, no last linear map where it is the embedding.
 * @param more further metadata, a tokenizer for one
 */
export async function llamaGguf(files: PretrainedFiles, type: WeightType, more: Readonly<Record<string, GgufValue>> = {}): Promise<Buffer> {
	const { metadata, tensors } = await llamaGgufParts(files, type, more);
	return ggufBytes(metadata, tensors);
}

/** What such a file is made of. */
export async function llamaGgufParts(
	files: PretrainedFiles,
	type: WeightType,
	more: Readonly<Record<string, GgufValue>> = {},
): Promise<{ metadata: Record<string, GgufValue>; tensors: Map<string, GgufTensorData> }> {
	const { config, weights } = files;
	const metadata: Record<string, GgufValue> = {
		'general.architecture': 'llama',
		'general.name': 'test',
		'llama.block_count': { u32: config.layers },
		'llama.context_length': { u32: config.context },
		'llama.embedding_length': { u32: config.dim },
		'llama.feed_forward_length': { u32: config.hidden },
		'llama.attention.head_count': { u32: config.heads },
		'llama.attention.head_count_kv': { u32: config.kvHeads },
		'llama.attention.key_length': { u32: config.headDim },
		'llama.attention.value_length': { u32: config.headDim },
		'llama.attention.layer_norm_rms_epsilon': { f32: config.epsilon },
		'llama.rope.freq_base': { f32: config.rope.theta },
		'llama.rope.dimension_count': { u32: config.headDim },
		'llama.vocab_size': { u32: config.vocabulary },
		...(config.bos === null ? {} : { 'tokenizer.ggml.bos_token_id': { u32: config.bos } }),
		...(config.eos.length === 0 ? {} : { 'tokenizer.ggml.eos_token_id': { u32: config.eos[0]! } }),
		...more,
	};
	const tensors = new Map<string, GgufTensorData>();
	for (const [name, { shape, path, offset }] of weights) {
		const embedding = weights.get('model.embed_tokens.weight')!;
		if (name === 'lm_head.weight' && path === embedding.path && offset === embedding.offset) continue;
		let numbers = await weightNumbers(files, name);
		const heads = /\.(q|k)_proj\./.exec(name)?.[1];
		if (heads && config.rope.pairs === 'halves') {
			numbers = halvesToNeighbours(numbers, heads === 'q' ? config.heads : config.kvHeads, config.headDim);
		}
		const stored = shape.length === 1 ? 'f32' : shape.at(-1)! % blocks[type].numbers === 0 ? type : 'f16';
		tensors.set(ggufName(name), { type: stored, shape, data: quantize(stored, numbers) });
	}
	return { metadata, tensors };
}
