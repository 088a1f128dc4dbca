import { FormatError } from '../errors.js';
import { readBytes } from './bytes.js';
import { Fields, openFile } from './fields.js';
import { readGgufParts } from './gguf_parts.js';
import type { GgufTensors } from './gguf_tensors.js';
import {
	checkSizes,
	gatherWeights,
	type LlamaConfig,
	type LlamaSizes,
	limits,
	type PretrainedFiles,
	type Projection,
	type Rope,
} from './pretrained.js';
import { type RopeScaling, ropeFrequencies, yarnMagnitude } from './rope.js';

export { ggufMetadata } from './gguf_header.js';

/**
 * What Hugging Face calls each architecture, and which numbers of a head turn together: the converter reorders the queries and keys of
 * Llama (and of Mistral, which it calls the same) so that pairs are neighbours, and leaves those of Qwen2 as they are.
 */
const architectures: Readonly<
	Record<string, { readonly name: string; readonly pairs: Rope['pairs']; readonly biases: readonly Projection[] }>
> = {
	llama: { name: 'LlamaForCausalLM', pairs: 'neighbours', biases: [] },
	mistral: { name: 'MistralForCausalLM', pairs: 'neighbours', biases: [] },
	qwen2: { name: 'Qwen2ForCausalLM', pairs: 'halves', biases: ['q', 'k', 'v'] },
};

const parts: readonly (readonly [huggingFace: string, gguf: string])[] = [
	['input_layernorm', 'attn_norm'],
	['self_attn.q_proj', 'attn_q'],
	['self_attn.k_proj', 'attn_k'],
	['self_attn.v_proj', 'attn_v'],
	['self_attn.o_proj', 'attn_output'],
	['post_attention_layernorm', 'ffn_norm'],
	['mlp.gate_proj', 'ffn_gate'],
	['mlp.up_proj', 'ffn_up'],
	['mlp.down_proj', 'ffn_down'],
];

/** What a GGUF calls a weight that Hugging Face calls `name`. */
export function ggufName(name: string): string {
	const whole = {
		'model.embed_tokens.weight': 'token_embd.weight',
		'model.norm.weight': 'output_norm.weight',
		'lm_head.weight': 'output.weight',
	};
	if (Object.hasOwn(whole, name)) return whole[name as keyof typeof whole];
	const [, layer, part, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name)!;
	return `blk.${layer}.${parts.find(([huggingFace]) => huggingFace === part)![1]}.${kind}`;
}

/**
 * Open a GGUF file of architecture llama, mistral or qwen2, with weights of type F32, F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K; or several files
 * that are one model's, by any of them.
 * @throws FormatError
 */
export async function openGguf(place: string, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<PretrainedFiles> {
	const { path, metadata, tensors } = await readGgufParts(place, signal);
	const fields = new Fields(path, metadata);
	const called = fields.text('general.architecture');
	const architecture = Object.hasOwn(architectures, called) ? architectures[called] : undefined;
	if (!architecture) throw fields.refuse('general.architecture', `one of ${Object.keys(architectures).join(', ')}`);
	const of = (name: string) => `${called}.${name}`;
	if (fields.integer(of('expert_count'), { least: 0, otherwise: 0 }) > 0) throw fields.refuse(of('expert_count'), 'no experts');
	const sizes = readSizes(fields, of, tensors);
	checkSizes(path, sizes);
	const context = fields.integer(of('context_length'), { most: limits.context });
	const window = fields.integer(of('attention.sliding_window'), { least: 0, most: limits.context, otherwise: 0 });
	const token = { least: 0, most: sizes.vocabulary - 1, otherwise: null };
	const ends = ['eos_token_id', 'eot_token_id', 'eom_token_id'].map((name) => fields.integer(`tokenizer.ggml.${name}`, token));
	const config: LlamaConfig = {
		architecture: architecture.name,
		...sizes,
		context,
		epsilon: fields.number(of('attention.layer_norm_rms_epsilon'), { least: 0, most: 1 }),
		rope: { pairs: architecture.pairs, ...(await readRope(fields, of, sizes.headDim, context, tensors)) },
		slidingWindow: Array.from({ length: sizes.layers }, () => window || null),
		bos: fields.integer('tokenizer.ggml.bos_token_id', token),
		eos: [...new Set(ends.filter((id) => id !== null))],
	};
	const weights = gatherWeights(path, sizes, {
		tied: !tensors.has('output.weight'),
		biases: (['q', 'k', 'v', 'o'] as const).filter(
			(each) => architecture.biases.includes(each) || tensors.has(ggufName(`model.layers.0.self_attn.${each}_proj.bias`)),
		),
		find: (name) => tensors.get(ggufName(name))?.() ?? null,
		called: ggufName,
	});
	return { path: place, format: 'gguf', config, weights, metadata };
}

function readSizes(fields: Fields, of: (name: string) => string, tensors: GgufTensors): LlamaSizes {
	const side = { most: limits.side };
	const dim = fields.integer(of('embedding_length'), side);
	const heads = fields.integer(of('attention.head_count'), side);
	if (!fields.has(of('attention.key_length')) && dim % heads !== 0) {
		throw fields.refuse(of('embedding_length'), `a multiple of the ${heads} heads`);
	}
	const headDim = fields.integer(of('attention.key_length'), { ...side, otherwise: dim / heads });
	for (const name of ['attention.value_length', 'rope.dimension_count'].map(of)) {
		if (fields.integer(name, { otherwise: headDim }) !== headDim) throw fields.refuse(name, `${headDim}, the length of a key`);
	}
	const rows = tensors.get('token_embd.weight')?.().shape[0];
	const tokens = fields.value('tokenizer.ggml.tokens');
	const vocabulary = Array.isArray(tokens) ? tokens.length : (rows ?? 0);
	if (vocabulary < 1 || vocabulary > limits.side) {
		throw new FormatError(fields.path, `there are ${vocabulary} tokens, expected 1 to ${limits.side}`);
	}
	return {
		dim,
		hidden: fields.integer(of('feed_forward_length'), side),
		layers: fields.integer(of('block_count'), { most: limits.layers }),
		heads,
		kvHeads: fields.integer(of('attention.head_count_kv'), { ...side, otherwise: heads }),
		headDim,
		vocabulary,
	};
}

async function readRope(fields: Fields, of: (name: string) => string, headDim: number, context: number, tensors: GgufTensors) {
	const theta = fields.number(of('rope.freq_base'), { least: 1, most: 1e15, otherwise: 10_000 });
	const scaling = readScaling(fields, of, context);
	if (scaling?.kind === 'yarn' && theta === 1) throw fields.refuse(of('rope.freq_base'), 'a number above 1 for yarn');
	if (tensors.has('rope_factors_long.weight')) {
		throw new FormatError(
			fields.path,
			'there is a tensor `rope_factors_long.weight` (longrope), expected one of none, linear, yarn, llama3',
		);
	}
	const rope = ropeFrequencies(headDim, theta, scaling);
	// Llama 3.1's scaling comes worked out, as what each pair's frequency is divided by.
	const factors = tensors.get('rope_freqs.weight')?.();
	if (factors) {
		if (factors.type !== 'f32' || factors.shape.length !== 1 || factors.shape[0] !== headDim / 2) {
			const found = `${factors.type} of shape [${factors.shape.join(', ')}]`;
			throw new FormatError(factors.path, `\`rope_freqs.weight\` is ${found}, expected f32 of shape [${headDim / 2}]`);
		}
		await using file = await openFile(factors.path);
		const bytes = await readBytes(factors.path, file, factors.offset, factors.offset + factors.bytes);
		for (let i = 0; i < rope.frequencies.length; i++) {
			const factor = bytes.readFloatLE(4 * i);
			if (!(factor > 0 && factor <= 1e6)) {
				const offset = factors.offset + 4 * i;
				throw new FormatError(factors.path, `\`rope_freqs.weight\` has ${factor}, expected above 0 and at most 1000000`, { offset });
			}
			rope.frequencies[i]! /= factor;
		}
	}
	return { theta, ...rope };
}

function readScaling(fields: Fields, of: (name: string) => string, context: number): RopeScaling | null {
	const scaling = (name: string) => of(`rope.scaling.${name}`);
	// Older files have the factor under a name of its own; 0 says that there is none.
	const place = fields.has(scaling('factor')) ? scaling('factor') : of('rope.scale_linear');
	const factor = fields.number(place, { least: 0, most: 1e6, otherwise: 0 }) || 1;
	const kind = fields.text(scaling('type'), { otherwise: 'linear' });
	if (kind === 'none') return null;
	if (kind === 'linear') return factor === 1 ? null : { kind, factor };
	if (kind !== 'yarn') throw fields.refuse(scaling('type'), 'one of none, linear, yarn');
	if (fields.number(scaling('yarn_ext_factor'), { otherwise: 1 }) !== 1) throw fields.refuse(scaling('yarn_ext_factor'), '1');
	const fast = fields.number(scaling('yarn_beta_fast'), { most: 1e6, otherwise: 32 });
	const slow = fields.number(scaling('yarn_beta_slow'), { most: 1e6, otherwise: 1 });
	if (slow >= fast) throw fields.refuse(scaling('yarn_beta_fast'), `more than yarn_beta_slow, ${slow}`);
	const attention = fields.has(scaling('yarn_attn_factor')) ? scaling('yarn_attn_factor') : scaling('attn_factor');
	return {
		kind,
		factor,
		context: fields.integer(scaling('original_context_length'), { most: limits.context, otherwise: context }),
		fast,
		slow,
		whole: true,
		magnitude: fields.number(attention, { most: 1e6, otherwise: 1 }) * yarnMagnitude(factor),
	};
}
