import fs from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError } from '../errors.js';
import { type Fields, openFile, readJson, shown } from './fields.js';
import { readRope } from './hugging_face_rope.js';
import {
	checkSizes,
	gatherWeights,
	type LlamaConfig,
	type LlamaSizes,
	limits,
	type PretrainedFiles,
	type Projection,
	type StoredWeight,
	type WeightType,
} from './pretrained.js';
import { SafetensorsFile } from './safetensors.js';

const architectures = ['LlamaForCausalLM', 'MistralForCausalLM', 'Qwen2ForCausalLM'] as const;
type Architecture = (typeof architectures)[number];

/** The window that transformers takes where a Mistral or Qwen2 says nothing of one. */
const usualWindow = 4096;

/** The largest models come in a few hundred shards. */
const mostShards = 10_000;

/**
 * Open a model as Hugging Face keeps them: a folder with config.json and either model.safetensors or model.safetensors.index.json with the
 * shards that it names.
 * @throws FormatError with the file that is not what it should be: another architecture, a weight that is missing or of another shape
 */
export async function openHuggingFace(
	folder: string,
	{ signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<PretrainedFiles> {
	const config = await readJson(join(folder, 'config.json'));
	const architecture = readArchitecture(config);
	const sizes = readSizes(config, architecture);
	checkSizes(config.path, sizes);
	const context = config.integer('max_position_embeddings', { most: limits.context });
	const { bos, eos } = await readEnds(folder, config, sizes.vocabulary);
	const llama: LlamaConfig = {
		architecture,
		...sizes,
		context,
		epsilon: config.number('rms_norm_eps', { least: 0, most: 1, otherwise: 1e-6 }),
		rope: readRope(config, sizes.headDim, context),
		slidingWindow: readWindows(config, architecture, sizes.layers),
		bos,
		eos,
	};
	const { path, places } = await findWeights(folder, signal);
	const weights = gatherWeights(path, sizes, {
		tied: config.boolean('tie_word_embeddings', false),
		biases: readBiases(config, architecture),
		find: (name) => places.get(name)?.() ?? null,
	});
	return { path: folder, format: 'hugging_face', config: llama, weights, metadata: null };
}

function readArchitecture(config: Fields): Architecture {
	const named = config.value('architectures');
	const known = Array.isArray(named) && named.length === 1 && architectures.find((each) => each === named[0]);
	if (!known) throw config.refuse('architectures', `one of ${architectures.join(', ')}`);
	if (config.has('quantization_config')) throw config.refuse('quantization_config', 'none (weights in F32, F16 or BF16)');
	if (config.text('hidden_act', { otherwise: 'silu' }) !== 'silu') throw config.refuse('hidden_act', '"silu"');
	if (config.boolean('mlp_bias', false)) throw config.refuse('mlp_bias', 'false');
	return known;
}

function readSizes(config: Fields, architecture: Architecture): LlamaSizes {
	const side = { most: limits.side };
	const dim = config.integer('hidden_size', side);
	const heads = config.integer('num_attention_heads', side);
	// Older files of Llama know no key-value heads; where others leave them out, transformers' numbers are not the file's.
	const kvHeads = config.integer('num_key_value_heads', architecture === 'LlamaForCausalLM' ? { ...side, otherwise: heads } : side);
	if (!config.has('head_dim') && dim % heads !== 0) throw config.refuse('hidden_size', `a multiple of num_attention_heads, ${heads}`);
	return {
		dim,
		hidden: config.integer('intermediate_size', side),
		layers: config.integer('num_hidden_layers', { most: limits.layers }),
		heads,
		kvHeads,
		headDim: config.integer('head_dim', { ...side, otherwise: dim / heads }),
		vocabulary: config.integer('vocab_size', side),
	};
}

function readBiases(config: Fields, architecture: Architecture): readonly Projection[] {
	if (architecture === 'Qwen2ForCausalLM') return ['q', 'k', 'v'];
	return architecture === 'LlamaForCausalLM' && config.boolean('attention_bias', false) ? ['q', 'k', 'v', 'o'] : [];
}

/** By layer. A null in the file says none; only where the key is missing does transformers' own number hold. */
function readWindows(config: Fields, architecture: Architecture, layers: number): readonly (number | null)[] {
	const all = (window: number | null) => Array.from({ length: layers }, () => window);
	if (architecture === 'LlamaForCausalLM') return all(null);
	const range = { most: limits.context, otherwise: config.names.includes('sliding_window') ? null : usualWindow };
	if (architecture === 'MistralForCausalLM') return all(config.integer('sliding_window', range));
	if (!config.boolean('use_sliding_window', false)) return all(null);
	const window = config.integer('sliding_window', range);
	const types = config.value('layer_types');
	if (types === undefined) {
		const first = config.integer('max_window_layers', { least: 0, otherwise: 28 });
		return all(window).map((each, i) => (i >= first ? each : null));
	}
	if (!Array.isArray(types) || types.length !== layers) throw config.refuse('layer_types', `a list of ${layers} names`);
	return types.map((type) => {
		if (type === 'sliding_attention') return window;
		if (type === 'full_attention') return null;
		throw new FormatError(config.path, `\`layer_types\` has ${shown(type)}, expected "full_attention" or "sliding_attention"`);
	});
}

/** The tokens that begin and end a text: from config.json, and what it leaves out from generation_config.json. */
async function readEnds(folder: string, config: Fields, vocabulary: number): Promise<Pick<LlamaConfig, 'bos' | 'eos'>> {
	const place = join(folder, 'generation_config.json');
	const missing = !config.has('bos_token_id') || !config.has('eos_token_id');
	const generation = missing && (await exists(place)) ? await readJson(place) : null;
	const from = (name: string) => (config.has(name) || !generation ? config : generation);
	const token = { least: 0, most: vocabulary - 1 };
	const ends = from('eos_token_id');
	const listed = ends.value('eos_token_id');
	const eos = Array.isArray(listed) ? listed : listed === undefined ? [] : [listed];
	if (!eos.every((id) => Number.isInteger(id) && id >= 0 && id < vocabulary)) {
		throw ends.refuse('eos_token_id', `a token from 0 to ${vocabulary - 1}, or a list of such`);
	}
	return { bos: from('bos_token_id').integer('bos_token_id', { ...token, otherwise: null }), eos: [...new Set<number>(eos)] };
}

const types: Readonly<Record<string, WeightType>> = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

/** Where every tensor lies, looked up when it is asked for: one of another type is only refused if the model has it. */
type Places = Map<string, () => StoredWeight>;

/** Whether something has this name; what it is, is said when it is opened. */
async function exists(path: string): Promise<boolean> {
	return fs.lstat(path).then(
		() => true,
		() => false,
	);
}

async function findWeights(folder: string, signal: AbortSignal | undefined): Promise<{ path: string; places: Places }> {
	const single = join(folder, 'model.safetensors');
	const index = join(folder, 'model.safetensors.index.json');
	if (await exists(single)) return { path: single, places: await placesIn(single) };
	if (!(await exists(index))) {
		throw new FormatError(folder, 'there is no model.safetensors and no model.safetensors.index.json, expected one of them');
	}
	const map = (await readJson(index)).object('weight_map');
	if (!map) throw new FormatError(index, 'there is no `weight_map`, expected shards by tensor name');
	const shards = new Map<string, string[]>();
	for (const name of map.names) {
		const shard = map.value(name);
		// A name and nothing more: no path leads out of the folder.
		if (typeof shard !== 'string' || !/^[\w][\w.-]*\.safetensors$/.test(shard) || shard.length > 255) {
			throw map.refuse(name, 'the name of a .safetensors file in the same folder');
		}
		const names = shards.get(shard);
		if (names) names.push(name);
		else shards.set(shard, [name]);
	}
	if (shards.size > mostShards) throw new FormatError(index, `\`weight_map\` names ${shards.size} shards, expected at most ${mostShards}`);
	const places: Places = new Map();
	for (const [shard, names] of shards) {
		signal?.throwIfAborted();
		const path = join(folder, shard);
		const found = await placesIn(path);
		for (const name of names) {
			const place = found.get(name);
			if (!place) throw new FormatError(path, `there is no tensor \`${shown(name).slice(1, -1)}\`, expected it here by the index`);
			places.set(name, place);
		}
	}
	return { path: index, places };
}

async function placesIn(path: string): Promise<Places> {
	await (await openFile(path)).close(); // says what it is if it is no file
	await using file = await SafetensorsFile.open(path);
	const entry = (name: string) => {
		const { dtype, shape, offset, bytes } = file.entry(name);
		const type = types[dtype];
		if (!type) throw new FormatError(path, `\`${name}\` is ${dtype}, expected F32, F16 or BF16`, { offset });
		return { type, shape, path, offset, bytes };
	};
	return new Map(file.names.map((name) => [name, () => entry(name)]));
}
