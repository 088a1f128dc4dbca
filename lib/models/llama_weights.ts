import fs from 'node:fs/promises';
import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { FormatError } from '../errors.js';
import { readBytes } from '../io/bytes.js';
import { blocks, type PretrainedFiles, type StoredWeight } from '../io/pretrained.js';
import { storedKinds } from '../ops/stored.js';
import { persist, Tensor } from '../tensor.js';
import { converted, typeUsed, type WeightDtype } from './llama_convert.js';

/** A linear map as the file has it. */
export interface Projection {
	readonly w: Tensor;
	readonly b: Tensor | null;
	readonly kind: number;
}

export interface LayerWeights {
	readonly attentionNorm: Tensor;
	readonly q: Projection;
	readonly k: Projection;
	readonly v: Projection;
	readonly o: Projection;
	readonly feedForwardNorm: Tensor;
	readonly gate: Projection;
	readonly up: Projection;
	readonly down: Projection;
}

export interface LlamaWeights {
	readonly embedding: Projection;
	readonly layers: readonly LayerWeights[];
	readonly norm: Tensor;
	readonly head: Projection;
}

export interface MapOptions {
	readonly device: DeviceName;
	/** Look at every number once. */
	readonly verify: boolean;
	/** What matrices are converted to. @default as they are in the file */
	readonly dtype?: WeightDtype | undefined;
	readonly signal?: AbortSignal | undefined;
}

/**
 * Weights of a model: matrices stay where they are in the file, or are converted one after the other; vectors (norms and biases) are
 * widened to f32.
 */
export async function mapWeights(files: PretrainedFiles, options: MapOptions): Promise<LlamaWeights> {
	const made = new Map<string, Tensor>();
	try {
		for (const [name, weight] of files.weights) {
			options.signal?.throwIfAborted();
			const same = [...files.weights].find(([other, each]) => each === weight && made.has(other));
			if (same) {
				made.set(name, made.get(same[0])!);
				continue;
			}
			if (options.verify) await verify(name, weight);
			made.set(name, persist(weight.shape.length === 1 ? await vector(weight, options.device) : await matrix(name, weight, options)));
		}
	} catch (error) {
		for (const tensor of made.values()) tensor.dispose();
		throw error;
	}
	const projection = (name: string): Projection => {
		const w = made.get(`${name}.weight`)!;
		return { w, b: made.get(`${name}.bias`) ?? null, kind: storedKinds[w.dtype]! };
	};
	return {
		embedding: projection('model.embed_tokens'),
		layers: Array.from({ length: files.config.layers }, (_, i) => {
			const layer = `model.layers.${i}`;
			return {
				attentionNorm: made.get(`${layer}.input_layernorm.weight`)!,
				q: projection(`${layer}.self_attn.q_proj`),
				k: projection(`${layer}.self_attn.k_proj`),
				v: projection(`${layer}.self_attn.v_proj`),
				o: projection(`${layer}.self_attn.o_proj`),
				feedForwardNorm: made.get(`${layer}.post_attention_layernorm.weight`)!,
				gate: projection(`${layer}.mlp.gate_proj`),
				up: projection(`${layer}.mlp.up_proj`),
				down: projection(`${layer}.mlp.down_proj`),
			};
		}),
		norm: made.get('model.norm.weight')!,
		head: projection('lm_head'),
	};
}

/** Every tensor once. */
export function tensorsOf({ embedding, layers, norm, head }: LlamaWeights): Set<Tensor> {
	const all = new Set<Tensor>([norm]);
	const add = ({ w, b }: Projection) => {
		all.add(w);
		if (b) all.add(b);
	};
	for (const each of [embedding, head]) add(each);
	for (const { attentionNorm, feedForwardNorm, ...projections } of layers) {
		all.add(attentionNorm).add(feedForwardNorm);
		for (const each of Object.values(projections)) add(each);
	}
	return all;
}

async function matrix(name: string, weight: StoredWeight, { device, dtype, verify }: MapOptions): Promise<Tensor> {
	const type = typeUsed(weight, dtype);
	const stored = mapped(weight, device);
	if (type === weight.type) return stored;
	const result = await converted(stored, type, device);
	const fault = verify ? await firstFault(result) : -1; // the file's own numbers are finite
	if (fault < 0) return result;
	result.dispose();
	const place = indexOf(fault, weight.shape).join(', ');
	throw new FormatError(weight.path, `\`${name}\`: a number at [${place}] or in its block is too large for ${type}, expected dtype f32`, {
		offset: placeOf(weight, fault),
	});
}

function mapped({ type, shape, path, offset }: StoredWeight, device: DeviceName): Tensor {
	try {
		return Tensor.map(shape, device, type, path, offset);
	} catch (error) {
		throw new FormatError(path, `cannot be mapped: ${(error as Error).message}`, { offset, cause: error });
	}
}

async function vector(weight: StoredWeight, device: DeviceName): Promise<Tensor> {
	const { type, shape } = weight;
	const data = await bytesOf(weight);
	if (type === 'f32') return Tensor.empty(shape, device, 'f32', new Float32Array(data.buffer, data.byteOffset, shape[0]!));
	const stored = Tensor.empty(shape, device, type, data);
	const wide = Tensor.empty(shape, device);
	binding.widen(stored.buffer, wide.buffer, type === 'f16' ? 0 : 1, shape[0]!);
	stored.dispose();
	return wide;
}

async function bytesOf({ path, offset, bytes }: StoredWeight): Promise<Uint8Array> {
	await using file = await fs.open(path);
	return readBytes(path, file, offset, offset + bytes);
}

/** @throws FormatError at the byte of the first number that is not finite */
async function verify(name: string, weight: StoredWeight): Promise<void> {
	const w = mapped(weight, 'cpu');
	const fault = await firstFault(w).finally(() => w.dispose());
	if (fault < 0) return;
	const place = `[${indexOf(fault, weight.shape).join(', ')}]`;
	throw new FormatError(weight.path, `\`${name}\`: the number at ${place} is not finite, expected finite weights`, {
		offset: placeOf(weight, fault),
	});
}

/** Which number of a weight is the first that is not finite, or of the first block whose scale is not; −1: none. */
async function firstFault(w: Tensor): Promise<number> {
	const found = Tensor.empty([1], w.device, 'i32');
	binding.firstFault(w.buffer, found.buffer, storedKinds[w.dtype]!, w.size);
	const [first] = await found.read();
	found.dispose();
	return first!;
}

/** The byte at which the block with this number begins. */
function placeOf({ type, offset }: StoredWeight, n: number): number {
	const { numbers, bytes } = blocks[type];
	return offset + Math.floor(n / numbers) * bytes;
}

function indexOf(n: number, shape: readonly number[]): number[] {
	const index: number[] = [];
	for (const side of [...shape].reverse()) {
		index.unshift(n % side);
		n = Math.floor(n / side);
	}
	return index;
}
