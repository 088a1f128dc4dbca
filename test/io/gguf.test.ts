import fs from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { ggufName } from '../../lib/io/gguf.js';
import { openPretrained } from '../../lib/io/open_pretrained.js';
import { blocks, type LlamaSizes, type Projection, type WeightType, weightBytes, weightShapes } from '../../lib/io/pretrained.js';
import { ropeFrequencies, yarnMagnitude } from '../../lib/io/rope.js';
import { Random } from '../../lib/random.js';
import { file } from '../files.js';
import { dequantize } from './dequantize.js';
import { type GgufTensorData, type GgufValue, ggufBytes, quantize } from './gguf_writer.js';
import { halvesToNeighbours, llamaGguf, weightNumbers } from './llama_gguf.js';
import { folderOf, randomTensors, smallConfig, smallSizes } from './models.js';

/** Wide enough for every type of block. */
const sizes: LlamaSizes = { dim: 256, hidden: 512, layers: 2, heads: 4, kvHeads: 2, headDim: 64, vocabulary: 48 };

function metadataOf(architecture: string, more: Readonly<Record<string, GgufValue | undefined>> = {}): Record<string, GgufValue> {
	const all: Record<string, GgufValue | undefined> = {
		'general.architecture': architecture,
		[`${architecture}.block_count`]: { u32: sizes.layers },
		[`${architecture}.context_length`]: { u32: 128 },
		[`${architecture}.embedding_length`]: { u32: sizes.dim },
		[`${architecture}.feed_forward_length`]: { u32: sizes.hidden },
		[`${architecture}.attention.head_count`]: { u32: sizes.heads },
		[`${architecture}.attention.head_count_kv`]: { u32: sizes.kvHeads },
		[`${architecture}.attention.layer_norm_rms_epsilon`]: { f32: 1e-5 },
		...more,
	};
	return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, GgufValue] => entry[1] !== undefined));
}

/** Random weights; matrices of the type. */
function tensorsOf(type: WeightType, biases: readonly Projection[] = []): Map<string, GgufTensorData> {
	const random = new Random(2);
	const tensors = new Map<string, GgufTensorData>();
	for (const [name, shape] of [...weightShapes(sizes, biases), ['lm_head.weight', [sizes.vocabulary, sizes.dim]] as const]) {
		const numbers = Float32Array.from({ length: shape.reduce((n, side) => n * side, 1) }, () => random.normal());
		const stored = shape.length === 1 ? 'f32' : type;
		tensors.set(ggufName(name), { type: stored, shape, data: quantize(stored, numbers) });
	}
	return tensors;
}

const plain = tensorsOf('q4_0'); // the smallest, where the type is not what is looked at

async function open(metadata: Readonly<Record<string, GgufValue>>, tensors: ReadonlyMap<string, GgufTensorData> = plain, options = {}) {
	return openPretrained(await file('x', ggufBytes(metadata, tensors, options)));
}

/** With this metadata over that of a llama (undefined: left out). */
const llama = (more: Readonly<Record<string, GgufValue | undefined>> = {}, tensors = plain) => open(metadataOf('llama', more), tensors);

test.each(Object.keys(blocks) as WeightType[])('%s: every weight where it lies', async (type) => {
	const tensors = tensorsOf(type);
	const { config, weights, format, path } = await llama({}, tensors);
	expect(format).toBe('gguf');
	expect(config).toMatchObject({
		...sizes,
		architecture: 'LlamaForCausalLM',
		context: 128,
		epsilon: Math.fround(1e-5),
		bos: null,
		eos: [],
	});
	expect(config.rope).toMatchObject({ theta: 10000, pairs: 'neighbours', magnitude: 1 });
	expect(config.slidingWindow).toEqual([null, null]);
	expect(weights.size).toBe(2 * 9 + 3);
	const bytes = await fs.readFile(path);
	for (const [name, weight] of weights) {
		const { data, shape, type: stored } = tensors.get(ggufName(name))!;
		expect(weight, name).toMatchObject({ type: stored, shape, bytes: weightBytes(stored as WeightType, shape) });
		expect(weight.offset % 32, name).toBe(0);
		expect(bytes.subarray(weight.offset, weight.offset + weight.bytes).equals(data), name).toBe(true);
	}
});

test('names as llama.cpp gives them', () => {
	expect([...plain.keys()].slice(0, 11)).toEqual(
		[
			'token_embd',
			...['attn_norm', 'attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_norm', 'ffn_gate', 'ffn_up', 'ffn_down'],
			'attn_norm',
		].map((name, i) => `${i === 0 ? name : `blk.${i === 10 ? 1 : 0}.${name}`}.weight`),
	);
	expect([...plain.keys()].slice(-2)).toEqual(['output_norm.weight', 'output.weight']);
	expect(ggufName('model.layers.12.self_attn.q_proj.bias')).toBe('blk.12.attn_q.bias');
});

test('alignment and version 2', async () => {
	for (const [version, alignment] of [
		[2, 32],
		[3, 8],
		[3, 256],
	] as const) {
		const metadata = metadataOf('llama', { 'general.alignment': { u32: alignment } });
		const files = await open(metadata, plain, { version, alignment });
		const expected = dequantize('q4_0', plain.get('output.weight')!.data);
		expect(await weightNumbers(files, 'lm_head.weight')).toEqual(expected);
	}
});

test('tied: no last map in the file', async () => {
	const tensors = new Map(plain);
	tensors.delete('output.weight');
	const { weights } = await llama({}, tensors);
	expect(weights.get('lm_head.weight')).toEqual(weights.get('model.embed_tokens.weight'));
});

test('Qwen2: pairs are halves, and there are biases; others have biases where the file has', async () => {
	const qwen = await open(metadataOf('qwen2', { 'qwen2.rope.freq_base': { f32: 1e6 } }), tensorsOf('f16', ['q', 'k', 'v']));
	expect(qwen.config).toMatchObject({ architecture: 'Qwen2ForCausalLM', rope: { pairs: 'halves', theta: 1e6 } });
	expect(qwen.weights.get('model.layers.1.self_attn.v_proj.bias')).toMatchObject({ type: 'f32', shape: [128] });
	await expect(open(metadataOf('qwen2'))).rejects.toThrow('no tensor `blk.0.attn_q.bias`');
	const biased = await llama({}, tensorsOf('f16', ['q', 'k', 'v', 'o']));
	expect(biased.weights.get('model.layers.0.self_attn.o_proj.bias')!.shape).toEqual([256]);
	const partly = tensorsOf('f16', ['k']);
	partly.delete('blk.1.attn_k.bias');
	await expect(llama({}, partly)).rejects.toThrow('no tensor `blk.1.attn_k.bias`');
});

test('Mistral, a window, the ends of a text, tokens', async () => {
	const tokens = Array.from({ length: 48 }, (_, i) => `t${i}`);
	const files = await open(
		metadataOf('mistral', {
			'mistral.attention.sliding_window': { u32: 16 },
			'tokenizer.ggml.tokens': tokens,
			'tokenizer.ggml.bos_token_id': { u32: 1 },
			'tokenizer.ggml.eos_token_id': { u32: 2 },
			'tokenizer.ggml.eot_token_id': { u32: 7 },
			'tokenizer.ggml.eom_token_id': { u32: 2 },
		}),
	);
	expect(files.config).toMatchObject({
		architecture: 'MistralForCausalLM',
		slidingWindow: [16, 16],
		bos: 1,
		eos: [2, 7],
		rope: { pairs: 'neighbours' },
	});
	expect(files.metadata!['tokenizer.ggml.tokens']).toEqual(tokens);
	await expect(llama({ 'tokenizer.ggml.tokens': tokens.slice(1) })).rejects.toThrow(
		'`token_embd.weight` has shape [48, 256], expected [47, 256]',
	);
});

test('rotary positions: linear, yarn, factors of their own', async () => {
	const rope = async (more: Record<string, GgufValue>, tensors = plain) => (await llama(more, tensors)).config.rope;
	const linear = ropeFrequencies(64, 10000, { kind: 'linear', factor: 4 }).frequencies;
	expect((await rope({ 'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': { f32: 4 } })).frequencies).toEqual(linear);
	expect((await rope({ 'llama.rope.scale_linear': { f32: 4 } })).frequencies).toEqual(linear);
	const none = ropeFrequencies(64, 10000, null).frequencies;
	expect((await rope({ 'llama.rope.scaling.type': 'none', 'llama.rope.scaling.factor': { f32: 4 } })).frequencies).toEqual(none);
	const yarn = await rope({
		'llama.rope.scaling.type': 'yarn',
		'llama.rope.scaling.factor': { f32: 4 },
		'llama.rope.scaling.original_context_length': { u32: 32 },
		'llama.rope.scaling.attn_factor': { f32: 0.5 },
	});
	const shape = { kind: 'yarn', factor: 4, context: 32, fast: 32, slow: 1, whole: true, magnitude: 0.5 * yarnMagnitude(4) } as const;
	expect(yarn).toMatchObject(ropeFrequencies(64, 10000, shape));
	const factors = Float32Array.from({ length: 32 }, (_, i) => 1 + i / 8);
	const own = new Map(plain).set('rope_freqs.weight', { type: 'f32', shape: [32], data: new Uint8Array(factors.buffer) });
	expect((await rope({}, own)).frequencies).toEqual(none.map((frequency, i) => frequency / factors[i]!));
	factors[3] = Number.NaN;
	await expect(rope({}, own)).rejects.toThrow('`rope_freqs.weight` has NaN');
});

test('a model in each format has the same weights', async () => {
	const files = await openPretrained(await folderOf(smallConfig, randomTensors(smallSizes)));
	const written = await openPretrained(await file('x', await llamaGguf(files, 'f32')));
	expect(written.config).toMatchObject({ ...smallSizes, context: 64, bos: 1, eos: [2] });
	expect(written.config.rope.frequencies).toEqual(files.config.rope.frequencies);
	for (const name of files.weights.keys()) {
		const numbers = await weightNumbers(files, name);
		const heads = /(q|k)_proj/.exec(name)?.[1];
		expect(await weightNumbers(written, name)).toEqual(heads ? halvesToNeighbours(numbers, heads === 'q' ? 4 : 2, 4) : numbers);
	}
	expect([
		...halvesToNeighbours(
			Float32Array.from({ length: 8 }, (_, i) => i),
			2,
			4,
		),
	]).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
});

describe('what is not as it should be is refused, with the file', () => {
	const bytes = ggufBytes(metadataOf('llama'), plain);
	const cut = (at: number) => bytes.subarray(0, at);
	const put = (at: number, value: bigint) => {
		const changed = Buffer.from(bytes);
		changed.writeBigUInt64LE(value, at);
		return changed;
	};
	const like = (more: Record<string, GgufValue | undefined>, tensors: ReadonlyMap<string, GgufTensorData> = plain) =>
		ggufBytes(metadataOf('llama', more), tensors);
	const having = (name: string, change: Partial<GgufTensorData>) => new Map(plain).set(name, { ...plain.get(name)!, ...change });
	const place = (name: string) => bytes.indexOf(name) + name.length + 4 + 16 + 4; // of a matrix's offset
	const q = 'blk.0.attn_q.weight';
	test.each<[string, Uint8Array, string]>([
		['weights cut short', cut(bytes.length - 32), 'is it truncated?'],
		['a tensor at 2⁶³', put(place(q), 2n ** 63n), 'bytes before a tensor'],
		['a tensor beside the alignment', put(place(q), 8n), `\`${q}\` starts here, expected at a multiple of 32`],
		['tensors that overlap', put(place(q), 0n), 'expected behind'],
		[
			'another architecture',
			ggufBytes(metadataOf('gemma'), plain),
			'`general.architecture` is "gemma", expected one of llama, mistral, qwen2',
		],
		['experts', like({ 'llama.expert_count': { u32: 8 } }), '`llama.expert_count` is 8'],
		['no width', like({ 'llama.embedding_length': undefined }), '`llama.embedding_length` is not there'],
		['a width of −1', like({ 'llama.embedding_length': { u32: 2 ** 32 - 1 } }), '`llama.embedding_length` is 4294967295'],
		['widths by layer', like({ 'llama.feed_forward_length': Int32Array.of(512, 512) }), '`llama.feed_forward_length` is [512, 512]'],
		['values of another length', like({ 'llama.attention.value_length': { u32: 32 } }), '`llama.attention.value_length` is 32'],
		['part of a head', like({ 'llama.rope.dimension_count': { u32: 32 } }), '`llama.rope.dimension_count` is 32'],
		['an epsilon that is no number', like({ 'llama.attention.layer_norm_rms_epsilon': { f32: Number.NaN } }), '_epsilon` is NaN'],
		['longrope', like({ 'llama.rope.scaling.type': 'longrope' }), '`llama.rope.scaling.type` is "longrope"'],
		['an end outside of the vocabulary', like({ 'tokenizer.ggml.eos_token_id': { u32: 48 } }), '`tokenizer.ggml.eos_token_id` is 48'],
		['a type that is not known', like({}, having(q, { type: 13 })), `\`${q}\` is Q5_K, expected one of F32, F16, Q4_0`],
		['a type of the prototype', like({}, having(q, { type: 4242 })), `\`${q}\` is type 4242`],
		[
			'rows of broken blocks',
			like({}, having(q, { shape: [512, 128].map((side) => side / 16) })),
			'rows of 8 numbers, expected a multiple of 32',
		],
		['a weight turned over', like({}, having('blk.0.ffn_up.weight', { shape: [256, 512] })), 'has shape [256, 512], expected [512, 256]'],
		['a vector in blocks', like({}, having('output_norm.weight', { type: 'q8_0', data: new Uint8Array(272) })), 'is q8_0, expected f32'],
		['a weight that is missing', like({}, new Map([...plain].filter(([name]) => name !== q))), `there is no tensor \`${q}\``],
		['a model without anything', ggufBytes({}, new Map()), '`general.architecture` is not there'],
	])('%s', async (_, contents, message) => {
		const where = await file('model.bin', contents); // the name says nothing
		const error = await openPretrained(where).then(
			() => undefined,
			(reason: unknown) => reason as FormatError,
		);
		expect(error).toBeInstanceOf(FormatError);
		expect(error).toMatchObject({ path: where });
		expect(error!.message).toContain(message);
	});
});
