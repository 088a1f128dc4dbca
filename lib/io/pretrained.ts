import { FormatError, ShapeError } from '../errors.js';

/** What every reader of a pretrained model's files brings (hugging_face.ts, gguf.ts, llama2c.ts): sizes, and where each weight lies. */

/** How weights are stored: IEEE and brain floats, and the block formats of GGUF. */
export type WeightType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0' | 'q4_k' | 'q6_k';

/** Numbers that share a block of a type, and the bytes of one block (ggml's names and layouts). */
export const blocks: Readonly<Record<WeightType, { readonly numbers: number; readonly bytes: number }>> = {
	f32: { numbers: 1, bytes: 4 },
	f16: { numbers: 1, bytes: 2 },
	bf16: { numbers: 1, bytes: 2 },
	q8_0: { numbers: 32, bytes: 34 },
	q4_0: { numbers: 32, bytes: 18 },
	q4_k: { numbers: 256, bytes: 144 },
	q6_k: { numbers: 256, bytes: 210 },
};

/** One weight as it lies in a file: row-major, blocks along the last dimension. Checked: it lies wholly inside the file. */
export interface StoredWeight {
	readonly type: WeightType;
	readonly shape: readonly number[];
	readonly path: string;
	/** Bytes from the start of the file. */
	readonly offset: number;
	readonly bytes: number;
}

/** Rotary positions (Su et al. 2021, "RoFormer"). */
export interface Rope {
	readonly theta: number;
	/** Which numbers of a head turn together: neighbours (2i, 2i + 1), or (i, i + D/2). */
	readonly pairs: 'neighbours' | 'halves';
	/**
	 * Radians a position of each pair, `[D / 2]`, with every kind of scaling already worked in; and what scaled attention (yarn)
	 * multiplies both cosine and sine by.
	 */
	readonly frequencies: Float64Array;
	readonly magnitude: number;
}

/** A decoder of the LLaMA family. Letters as in binding.d.ts. */
export interface LlamaConfig {
	/** As the file names it: `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM`. */
	readonly architecture: string;
	/** C */
	readonly dim: number;
	/** Width of the feed-forward part. */
	readonly hidden: number;
	readonly layers: number;
	/** H */
	readonly heads: number;
	/** G */
	readonly kvHeads: number;
	/** D */
	readonly headDim: number;
	/** V */
	readonly vocabulary: number;
	/** Tokens of the context that the model was trained on. */
	readonly context: number;
	readonly epsilon: number;
	readonly rope: Rope;
	/** A query sees this many newest positions, itself included; null: all. By layer. */
	readonly slidingWindow: readonly (number | null)[];
	readonly bos: number | null;
	/** Tokens that end a text. */
	readonly eos: readonly number[];
}

/**
 * A pretrained model's files, open: nothing of the weights has been read. Weights have Hugging Face's names:
 * `model.embed_tokens.weight` [V, C], `model.norm.weight` [C], `lm_head.weight` [V, C] (the embedding's place in the file where they are
 * tied), and for layer i `model.layers.{i}.` + `input_layernorm.weight`, `post_attention_layernorm.weight` [C],
 * `self_attn.{q,k,v,o}_proj.weight` [H·D or G·D, C] (o: [C, H·D]), their `.bias` where there are some,
 * `mlp.{gate,up}_proj.weight` [F, C], `mlp.down_proj.weight` [C, F]. Every one that the configuration asks for is there and has its shape.
 */
export interface PretrainedFiles {
	readonly path: string;
	readonly format: 'hugging_face' | 'gguf' | 'llama2c';
	readonly config: LlamaConfig;
	readonly weights: ReadonlyMap<string, StoredWeight>;
	/** What else a GGUF says, the tokenizer among it (`ggufMetadata`); null in other formats. */
	readonly metadata: Readonly<Record<string, unknown>> | null;
}

/**
 * Bytes of a weight.
 * @throws ShapeError the last dimension is no multiple of the type's block
 */
export function weightBytes(type: WeightType, shape: readonly number[]): number {
	const { numbers, bytes } = blocks[type];
	if ((shape.at(-1) ?? 1) % numbers !== 0) {
		throw new ShapeError(
			`weightBytes: shape is [${shape.join(', ')}], expected a last dimension that is a multiple of ${numbers} (${type})`,
		);
	}
	return (shape.reduce((n, side) => n * side, 1) / numbers) * bytes;
}

/** What no model of the family comes near, so that a damaged number is noticed before anything is made of it. */
export const limits = { layers: 1024, side: 2 ** 20, context: 2 ** 31 - 1 } as const;

/** What the shapes of the weights follow from. */
export type LlamaSizes = Pick<LlamaConfig, 'dim' | 'hidden' | 'layers' | 'heads' | 'kvHeads' | 'headDim' | 'vocabulary'>;

/** A linear map that may have a bias: query, key, value, output. */
export type Projection = 'q' | 'k' | 'v' | 'o';

/** @throws FormatError sizes that do not fit each other */
export function checkSizes(path: string, { heads, kvHeads, headDim }: LlamaSizes): void {
	if (heads % kvHeads !== 0) {
		throw new FormatError(path, `there are ${heads} query heads and ${kvHeads} key-value heads, expected a multiple of the latter`);
	}
	if (headDim % 2 !== 0) throw new FormatError(path, `a head has ${headDim} numbers, expected an even count (they turn in pairs)`);
	if (heads * headDim > limits.side) {
		throw new FormatError(path, `${heads} heads of ${headDim} numbers are ${heads * headDim}, expected at most ${limits.side}`);
	}
}

/** Every weight but `lm_head.weight`, with its shape, in the order that they are used in. */
export function* weightShapes(sizes: LlamaSizes, biases: readonly Projection[]): Generator<[name: string, shape: readonly number[]]> {
	const { dim, hidden, layers, heads, kvHeads, headDim, vocabulary } = sizes;
	const widths = { q: heads * headDim, k: kvHeads * headDim, v: kvHeads * headDim, o: dim };
	yield ['model.embed_tokens.weight', [vocabulary, dim]];
	for (let i = 0; i < layers; i++) {
		const layer = `model.layers.${i}.`;
		yield [`${layer}input_layernorm.weight`, [dim]];
		for (const each of ['q', 'k', 'v', 'o'] as const) {
			yield [`${layer}self_attn.${each}_proj.weight`, [widths[each], each === 'o' ? widths.q : dim]];
			if (biases.includes(each)) yield [`${layer}self_attn.${each}_proj.bias`, [widths[each]]];
		}
		yield [`${layer}post_attention_layernorm.weight`, [dim]];
		yield [`${layer}mlp.gate_proj.weight`, [hidden, dim]];
		yield [`${layer}mlp.up_proj.weight`, [hidden, dim]];
		yield [`${layer}mlp.down_proj.weight`, [dim, hidden]];
	}
	yield ['model.norm.weight', [dim]];
}

/**
 * The weights that a model of these sizes has, each of exactly its shape.
 * @param options.tied the last linear map is the embedding
 * @param options.find where a weight lies (null: the file has none), by Hugging Face's name
 * @param options.called what the file calls a weight, for messages. @default the same
 */
export function gatherWeights(
	path: string,
	sizes: LlamaSizes,
	options: {
		readonly tied: boolean;
		readonly biases: readonly Projection[];
		readonly find: (name: string) => StoredWeight | null;
		readonly called?: (name: string) => string;
	},
): Map<string, StoredWeight> {
	const { tied, biases, find, called = (name) => name } = options;
	const weights = new Map<string, StoredWeight>();
	const take = (name: string, shape: readonly number[]) => {
		// Where both are one, files keep it under either name.
		const weight = find(name) ?? (tied && name === 'model.embed_tokens.weight' ? find('lm_head.weight') : null);
		if (!weight) throw new FormatError(path, `there is no tensor \`${called(name)}\`, expected one of shape [${shape.join(', ')}]`);
		if (weight.shape.length !== shape.length || weight.shape.some((side, i) => side !== shape[i])) {
			const found = weight.shape.join(', ');
			throw new FormatError(weight.path, `\`${called(name)}\` has shape [${found}], expected [${shape.join(', ')}]`);
		}
		if (shape.length === 1 && blocks[weight.type].numbers > 1) {
			throw new FormatError(weight.path, `\`${called(name)}\` is ${weight.type}, expected f32, f16 or bf16 for a vector`);
		}
		weights.set(name, weight);
	};
	for (const [name, shape] of weightShapes(sizes, biases)) take(name, shape);
	if (tied) weights.set('lm_head.weight', weights.get('model.embed_tokens.weight')!);
	else take('lm_head.weight', [sizes.vocabulary, sizes.dim]);
	return weights;
}
