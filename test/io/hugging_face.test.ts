import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { Fields } from '../../lib/io/fields.js';
import { openHuggingFace } from '../../lib/io/hugging_face.js';
import { openPretrained } from '../../lib/io/open_pretrained.js';
import { type LlamaSizes, type Projection, weightBytes } from '../../lib/io/pretrained.js';
import { SafetensorsFile, type StoredTensor, writeSafetensors } from '../../lib/io/safetensors.js';
import { temporary } from '../files.js';
import { weightNumbers } from './llama_gguf.js';
import { folderOf, published, randomTensors, smallConfig, smallSizes } from './models.js';

const small = (change: object = {}, tensors = randomTensors(smallSizes)) => folderOf({ ...smallConfig, ...change }, tensors);
const qkv: readonly Projection[] = ['q', 'k', 'v'];

/** The same tensors, one of them changed or (null) left out. */
function changed(name: string, change: Partial<StoredTensor> | null): Map<string, StoredTensor> {
	const tensors = randomTensors(smallSizes);
	if (change) tensors.set(name, { ...tensors.get(name)!, ...change });
	else expect(tensors.delete(name)).toBe(true);
	return tensors;
}

/** A folder whose weights are in two shards, with an index. */
async function sharded(alter: (map: Record<string, unknown>) => void = () => {}): Promise<string> {
	const folder = await temporary();
	const tensors = [...randomTensors(smallSizes)];
	const shards = { 'model-00001-of-00002.safetensors': tensors.slice(0, 9), 'model-00002-of-00002.safetensors': tensors.slice(9) };
	const map: Record<string, unknown> = {};
	for (const [shard, part] of Object.entries(shards)) {
		await writeSafetensors(path.join(folder, shard), new Map(part));
		for (const [name] of part) map[name] = shard;
	}
	alter(map);
	await fs.writeFile(path.join(folder, 'config.json'), JSON.stringify(smallConfig));
	await fs.writeFile(path.join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }));
	return folder;
}

test('the configuration and every weight, where it lies', async () => {
	const tensors = randomTensors(smallSizes);
	tensors.set('model.layers.0.self_attn.rotary_emb.inv_freq', { dtype: 'F32', shape: [2], data: new Uint8Array(8) }); // of old files
	const folder = await small({}, tensors);
	const { config, weights, format, path: place } = await openPretrained(folder);
	expect({ format, place }).toEqual({ format: 'hugging_face', place: folder });
	expect(config).toMatchObject({ ...smallSizes, architecture: 'LlamaForCausalLM', context: 64, epsilon: 1e-5, bos: 1, eos: [2] });
	expect(config.slidingWindow).toEqual([null, null]);
	expect(config.rope).toMatchObject({ theta: 10000, pairs: 'halves', magnitude: 1 });
	expect(weights.size).toBe(2 * 9 + 3);
	const bytes = await fs.readFile(path.join(folder, 'model.safetensors'));
	for (const [name, weight] of weights) {
		const { shape, data } = tensors.get(name)!;
		expect(weight, name).toMatchObject({
			type: 'f32',
			shape,
			bytes: weightBytes('f32', shape),
			path: path.join(folder, 'model.safetensors'),
		});
		expect(bytes.subarray(weight.offset, weight.offset + weight.bytes), name).toEqual(Buffer.from(data));
	}
});

test('shards: each weight in the file that the index names', async () => {
	const folder = await sharded();
	const { weights } = await openPretrained(folder);
	const whole = randomTensors(smallSizes);
	expect(weights.size).toBe(whole.size);
	for (const [name, { path: place, offset, bytes }] of weights) {
		const found = (await fs.readFile(place)).subarray(offset, offset + bytes);
		expect(found, name).toEqual(Buffer.from(whole.get(name)!.data));
	}
	expect(new Set([...weights.values()].map((weight) => path.basename(weight.path))).size).toBe(2);
});

test('tied: the last map is the embedding, under whichever name the file has it', async () => {
	const tied = await openPretrained(await small({ tie_word_embeddings: true }, randomTensors(smallSizes, { tied: true })));
	expect(tied.weights.get('lm_head.weight')).toEqual(tied.weights.get('model.embed_tokens.weight'));
	const tensors = changed('model.embed_tokens.weight', null);
	const other = await openPretrained(await small({ tie_word_embeddings: true }, tensors));
	expect(other.weights.get('model.embed_tokens.weight')).toEqual(other.weights.get('lm_head.weight'));
	await expect(openPretrained(await small({}, tensors))).rejects.toThrow('no tensor `model.embed_tokens.weight`');
	const without = randomTensors(smallSizes, { tied: true });
	await expect(openPretrained(await small({}, without))).rejects.toThrow('no tensor `lm_head.weight`, expected one of shape [32, 16]');
});

test('heads of a length of their own', async () => {
	const sizes: LlamaSizes = { ...smallSizes, headDim: 6 };
	const { config, weights } = await openPretrained(await small({ head_dim: 6 }, randomTensors(sizes)));
	expect(config.headDim).toBe(6);
	expect(config.rope.frequencies).toHaveLength(3);
	expect(weights.get('model.layers.1.self_attn.q_proj.weight')!.shape).toEqual([24, 16]);
	expect(weights.get('model.layers.1.self_attn.k_proj.weight')!.shape).toEqual([12, 16]);
	expect(weights.get('model.layers.1.self_attn.o_proj.weight')!.shape).toEqual([16, 24]);
});

test('Llama: as many key-value heads as query heads where none are named; biases where there are some', async () => {
	const sizes = { ...smallSizes, kvHeads: 4 };
	expect((await openPretrained(await small({ num_key_value_heads: undefined }, randomTensors(sizes)))).config.kvHeads).toBe(4);
	const biased = randomTensors(smallSizes, { biases: ['q', 'k', 'v', 'o'] });
	const { weights } = await openPretrained(await small({ attention_bias: true }, biased));
	expect(weights.get('model.layers.0.self_attn.o_proj.bias')!.shape).toEqual([16]);
	expect(weights.size).toBe(2 * 13 + 3);
	await expect(openPretrained(await small({ attention_bias: true }))).rejects.toThrow('no tensor `model.layers.0.self_attn.q_proj.bias`');
});

test('Mistral: a window in every layer', async () => {
	const windows = async (change: object) =>
		(await openPretrained(await small({ architectures: ['MistralForCausalLM'], ...change }))).config.slidingWindow;
	expect(await windows({ sliding_window: 10 })).toEqual([10, 10]);
	expect(await windows({ sliding_window: null })).toEqual([null, null]);
	expect(await windows({})).toEqual([4096, 4096]); // what transformers takes
	await expect(windows({ sliding_window: 0 })).rejects.toThrow('`sliding_window` is 0');
});

test('Qwen2: biases of q, k and v; a window only where it is used, from a layer on or by name', async () => {
	const tensors = randomTensors(smallSizes, { biases: qkv });
	const open = async (change: object) => openPretrained(await small({ architectures: ['Qwen2ForCausalLM'], ...change }, tensors));
	const { config, weights } = await open({ sliding_window: 10, use_sliding_window: false, max_window_layers: 0 });
	expect(weights.size).toBe(2 * 12 + 3);
	expect(config.slidingWindow).toEqual([null, null]);
	expect(weights.get('model.layers.1.self_attn.k_proj.bias')!.shape).toEqual([8]);
	expect(weights.has('model.layers.1.self_attn.o_proj.bias')).toBe(false);
	const used = { sliding_window: 10, use_sliding_window: true };
	expect((await open({ ...used, max_window_layers: 1 })).config.slidingWindow).toEqual([null, 10]);
	expect((await open(used)).config.slidingWindow).toEqual([null, null]);
	const types = ['sliding_attention', 'full_attention'];
	expect((await open({ ...used, layer_types: types })).config.slidingWindow).toEqual([10, null]);
	await expect(open({ ...used, layer_types: ['sliding_attention', 'linear'] })).rejects.toThrow('`layer_types` has "linear"');
	await expect(openPretrained(await small({ architectures: ['Qwen2ForCausalLM'] }))).rejects.toThrow('q_proj.bias`, expected');
});

test('the tokens that end a text: one, several, or those of generation_config.json', async () => {
	const ends = async (change: object, generation?: object) => {
		const folder = await small(change);
		if (generation) await fs.writeFile(path.join(folder, 'generation_config.json'), JSON.stringify(generation));
		const { bos, eos } = (await openPretrained(folder)).config;
		return [bos, eos];
	};
	expect(await ends({ eos_token_id: [2, 5, 2] })).toEqual([1, [2, 5]]);
	const none = { bos_token_id: null, eos_token_id: undefined };
	expect(await ends(none)).toEqual([null, []]);
	expect(await ends(none, { bos_token_id: 0, eos_token_id: [7, 8] })).toEqual([0, [7, 8]]);
	expect(await ends({ bos_token_id: null }, { bos_token_id: 3, eos_token_id: 9 })).toEqual([3, [2]]);
	for (const bad of [32, -1, 1.5, '2', [2, '3'], [[2]], {}]) await expect(ends({ eos_token_id: bad })).rejects.toThrow('eos_token_id` is');
});

test('f16 and bf16 as they are; what the model does not ask for may be anything', async () => {
	const halves = { dtype: 'F16', data: new Uint8Array(16 * 2) } as const;
	const { weights } = await openPretrained(await small({}, changed('model.norm.weight', halves)));
	expect(weights.get('model.norm.weight')).toMatchObject({ type: 'f16', bytes: 32 });
	const brains = { dtype: 'BF16', data: new Uint8Array(32 * 16 * 2) } as const;
	expect((await openPretrained(await small({}, changed('lm_head.weight', brains)))).weights.get('lm_head.weight')!.type).toBe('bf16');
	const tensors = randomTensors(smallSizes);
	tensors.set('model.mask', { dtype: 'I32', shape: [3], data: new Uint8Array(12) });
	const folder = await small({}, tensors);
	expect((await openPretrained(folder)).weights.has('model.mask')).toBe(false);
});

test('a call that is given up', async () => {
	const folder = await sharded();
	const reason = new Error('enough');
	const signal = AbortSignal.abort(reason);
	await expect(openPretrained(folder, { signal })).rejects.toBe(reason);
	await expect(openHuggingFace(folder, { signal })).rejects.toBe(reason); // between shards
});

describe('what is not as it should be is refused, with the file', () => {
	const weight = 'model.layers.1.mlp.up_proj.weight';
	test.each<[string, () => Promise<string>, string, string]>([
		['another architecture', () => small({ architectures: ['GPT2LMHeadModel'] }), 'config.json', 'GPT2LMHeadModel'],
		['no architecture', () => small({ architectures: undefined }), 'config.json', 'LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM'],
		['an architecture of the prototype', () => small({ architectures: ['toString'] }), 'config.json', '`architectures` is ["toString"]'],
		['weights quantised by another package', () => small({ quantization_config: { bits: 4 } }), 'config.json', '`quantization_config`'],
		['another activation', () => small({ hidden_act: 'gelu' }), 'config.json', '`hidden_act` is "gelu"'],
		['biases in the feed-forward part', () => small({ mlp_bias: true }), 'config.json', '`mlp_bias` is true'],
		['no width', () => small({ hidden_size: undefined }), 'config.json', '`hidden_size` is not there'],
		['a width that is text', () => small({ hidden_size: '16' }), 'config.json', '`hidden_size` is "16"'],
		['a width of 2⁵³', () => small({ hidden_size: 2 ** 53 }), 'config.json', '`hidden_size` is 9007199254740992'],
		['a width that does not fit', () => small({ hidden_size: 18 }), 'config.json', 'a multiple of num_attention_heads, 4'],
		['layers without end', () => small({ num_hidden_layers: 1025 }), 'config.json', '`num_hidden_layers` is 1025'],
		['heads that cannot be shared', () => small({ num_key_value_heads: 3 }), 'config.json', '4 query heads and 3 key-value heads'],
		['heads of odd length', () => small({ head_dim: 5 }), 'config.json', 'a head has 5 numbers'],
		['heads of absurd length', () => small({ head_dim: 2 ** 20 }), 'config.json', 'expected at most 1048576'],
		['an epsilon that is no number', () => small({ rms_norm_eps: 'NaN' }), 'config.json', '`rms_norm_eps` is "NaN"'],
		['tied, perhaps', () => small({ tie_word_embeddings: 1 }), 'config.json', '`tie_word_embeddings` is 1'],
		['a weight that is missing', () => small({}, changed(weight, null)), 'model.safetensors', `there is no tensor \`${weight}\``],
		[
			'a weight turned over',
			() => small({}, changed(weight, { shape: [16, 24] })),
			'model.safetensors',
			'has shape [16, 24], expected [24, 16]',
		],
		[
			'a weight of another type',
			() => small({}, changed(weight, { dtype: 'I32' })),
			'model.safetensors',
			'is I32, expected F32, F16 or BF16',
		],
		['no weights', async () => path.dirname(await withoutWeights()), '', 'no model.safetensors and no model.safetensors.index.json'],
		['a folder without config.json', temporary, 'config.json', 'cannot be opened (ENOENT)'],
		[
			'a shard that is missing',
			() => sharded((map) => Object.assign(map, { x: 'model-3.safetensors' })),
			'model-3.safetensors',
			'cannot be opened (ENOENT)',
		],
		[
			'a shard that lacks a tensor',
			() => sharded((map) => Object.assign(map, { [weight]: 'model-00001-of-00002.safetensors' })),
			'model-00001-of-00002.safetensors',
			`there is no tensor \`${weight}\``,
		],
		[
			'an index that lacks one',
			() => sharded((map) => delete map[weight]),
			'model.safetensors.index.json',
			`there is no tensor \`${weight}\``,
		],
		...['../m.safetensors', '/m.safetensors', 'a/b.safetensors', '..', 'a\\b.safetensors', 'a\0.safetensors', '', 7, null, {}].map(
			(shard): [string, () => Promise<string>, string, string] => [
				`a shard called ${JSON.stringify(shard)}`,
				() => sharded((map) => Object.assign(map, { [weight]: shard })),
				'model.safetensors.index.json',
				`\`weight_map.${weight}\` is`,
			],
		),
	])('%s', async (_, make, name, message) => {
		const folder = await make();
		const error = await openPretrained(folder).then(
			() => undefined,
			(reason: unknown) => reason as FormatError,
		);
		expect(error).toBeInstanceOf(FormatError);
		expect(error!.message).toContain(message);
		expect(error!.path).toBe(path.join(folder, name));
	});

	async function withoutWeights(): Promise<string> {
		const weights = path.join(await small(), 'model.safetensors');
		await fs.rm(weights);
		return weights;
	}

	test('a folder in the place of a file; links that go in circles', async () => {
		const folder = path.dirname(await withoutWeights());
		await fs.mkdir(path.join(folder, 'model.safetensors'));
		await expect(openPretrained(folder)).rejects.toThrow('this is a folder or a device');
		await fs.rmdir(path.join(folder, 'model.safetensors'));
		await fs.symlink('model.safetensors', path.join(folder, 'model.safetensors'));
		await expect(openPretrained(folder)).rejects.toThrow('cannot be opened (ELOOP)');
	});

	test('keys like __proto__ are keys like others', async () => {
		const folder = await small();
		const text = JSON.stringify(smallConfig);
		await fs.writeFile(path.join(folder, 'config.json'), `{"__proto__": {"head_dim": 6, "mlp_bias": true}, ${text.slice(1)}`);
		expect((await openPretrained(folder)).config.headDim).toBe(4);
		expect(['constructor', '__proto__', 'a'].map((name) => new Fields('x', { a: 1 }).has(name))).toEqual([false, false, true]);
	});
});

test('a published model: its sizes, and numbers read at their places', async () => {
	const folder = published ? path.join(published, 'tinystories656k') : await small();
	const files = await openPretrained(folder);
	if (published) {
		expect(files.config).toMatchObject({
			dim: 128,
			hidden: 384,
			layers: 2,
			heads: 8,
			kvHeads: 4,
			headDim: 16,
			vocabulary: 2048,
			context: 512,
		});
		expect(files.config).toMatchObject({ epsilon: 1e-6, bos: 1, eos: [2], rope: { theta: 10000 } });
	}
	await using file = await SafetensorsFile.open(path.join(folder, 'model.safetensors'));
	let parameters = 0;
	for (const [name, { shape }] of files.weights) {
		if (!file.has(name)) continue; // the published file has the embedding as lm_head.weight
		parameters += shape.reduce((n, side) => n * side, 1);
		expect(await weightNumbers(files, name), name).toEqual(await file.floats(name));
	}
	expect(parameters).toBe(published ? 656_000 : 4_944);
});
