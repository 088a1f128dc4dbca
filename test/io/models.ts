import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import { type LlamaSizes, type Projection, weightShapes } from '../../lib/io/pretrained.js';
import { type StoredTensor, writeSafetensors } from '../../lib/io/safetensors.js';
import { Random } from '../../lib/random.js';
import { temporary } from '../files.js';

/** Where published models are (OPLUS_DATA or ../shared/data), null where they are not. */
export const published = (() => {
	const folder = path.join(process.env.OPLUS_DATA ?? path.join(__dirname, '..', '..', '..', 'shared', 'data'), 'models');
	if (existsSync(folder)) return folder;
	console.warn(`test/io: ${folder} is not there; models made for the test take its place`);
	return null;
})();

/** A small model's config.json. */
export const smallConfig = {
	architectures: ['LlamaForCausalLM'],
	hidden_size: 16,
	intermediate_size: 24,
	num_hidden_layers: 2,
	num_attention_heads: 4,
	num_key_value_heads: 2,
	vocab_size: 32,
	max_position_embeddings: 64,
	rms_norm_eps: 1e-5,
	rope_theta: 10000,
	tie_word_embeddings: false,
	bos_token_id: 1,
	eos_token_id: 2,
};

export const smallSizes: LlamaSizes = { dim: 16, hidden: 24, layers: 2, heads: 4, kvHeads: 2, headDim: 4, vocabulary: 32 };

/** Random f32 weights of these sizes by Hugging Face's names. */
export function randomTensors(
	sizes: LlamaSizes,
	options: { biases?: readonly Projection[]; tied?: boolean } = {},
): Map<string, StoredTensor> {
	const { biases = [], tied = false } = options;
	const random = new Random(1);
	const shapes = [...weightShapes(sizes, biases)];
	if (!tied) shapes.push(['lm_head.weight', [sizes.vocabulary, sizes.dim]]);
	return new Map(
		shapes.map(([name, shape]) => {
			const numbers = Float32Array.from({ length: shape.reduce((n, side) => n * side, 1) }, () => random.normal());
			return [name, { dtype: 'F32', shape, data: new Uint8Array(numbers.buffer) }];
		}),
	);
}

/** A folder with this config.json and one model.safetensors. */
export async function folderOf(config: object, tensors: ReadonlyMap<string, StoredTensor>): Promise<string> {
	const folder = await temporary();
	await fs.writeFile(path.join(folder, 'config.json'), JSON.stringify(config));
	await writeSafetensors(path.join(folder, 'model.safetensors'), tensors);
	return folder;
}

/** An export of llama2.c with these weights, as its published writer orders them. @param version 0: the first export, without a mark */
export function llama2cBytes(
	sizes: LlamaSizes,
	tensors: ReadonlyMap<string, StoredTensor>,
	{ version = 0, context = 64 }: { version?: number; context?: number } = {},
): Buffer {
	const separate = tensors.has('lm_head.weight');
	const counts = [sizes.dim, sizes.hidden, sizes.layers, sizes.heads, sizes.kvHeads, sizes.vocabulary, context];
	if (version === 0 && separate) counts[5]! *= -1;
	const head = Buffer.alloc(version === 0 ? 28 : 256);
	if (version > 0) head.write('24ka', 'latin1');
	if (version > 0) head.writeInt32LE(version, 4);
	for (const [i, count] of counts.entries()) head.writeInt32LE(count, (version === 0 ? 0 : 8) + 4 * i);
	if (version > 0) head[36] = separate ? 0 : 1;
	const of = (name: string) => tensors.get(name)!.data;
	const each = (name: string) => Array.from({ length: sizes.layers }, (_, i) => of(`model.layers.${i}.${name}.weight`));
	const attention = ['q', 'k', 'v', 'o'].flatMap((part) => each(`self_attn.${part}_proj`));
	const feedForward = ['gate', 'down', 'up'].flatMap((part) => each(`mlp.${part}_proj`));
	const norms = [each('input_layernorm'), each('post_attention_layernorm')] as const;
	const [embedding, norm] = [of('model.embed_tokens.weight'), of('model.norm.weight')];
	const tables = Buffer.alloc(4 * context * sizes.headDim);
	const body =
		version === 0
			? [embedding, ...norms[0], ...attention, ...norms[1], ...feedForward, norm, tables]
			: [...norms[0], ...norms[1], norm, embedding, ...attention, ...feedForward];
	return Buffer.concat([head, ...body, ...(separate ? [of('lm_head.weight')] : [])]);
}
