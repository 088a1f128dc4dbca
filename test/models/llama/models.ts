import fs from 'node:fs/promises';
import path from 'node:path';
import { window } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { type LlamaSizes, weightShapes } from '../../../lib/io/pretrained.js';
import type { StoredTensor } from '../../../lib/io/safetensors.js';
import type { Llama } from '../../../lib/models/llama.js';
import { Random } from '../../../lib/random.js';
import { temporary } from '../../files.js';
import { llama2cBytes, published } from '../../io/models.js';

export { published };

export const madeSizes = { dim: 32, hidden: 48, layers: 3, heads: 8, kvHeads: 4, headDim: 4, vocabulary: 300 };

/** Random weights of a size that keeps activations near 1 and attention neither flat nor a single peak. */
export function madeTensors(seed = 5, sizes: LlamaSizes = madeSizes): Map<string, StoredTensor> {
	const random = new Random(seed);
	return new Map(
		[...weightShapes(sizes, [])].map(([name, shape]) => {
			const scale = name.includes('embed') ? 1 : 1.6 / Math.sqrt(shape.at(-1)!);
			const numbers = Float32Array.from({ length: shape.reduce((n, side) => n * side, 1) }, () =>
				shape.length === 1 ? 1 + 0.1 * random.normal() : scale * random.normal(),
			);
			return [name, { dtype: 'F32', shape, data: new Uint8Array(numbers.buffer) }];
		}),
	);
}

/** A llama2.c tokenizer of single bytes and nothing else, as many tokens as the made model has. */
export function madeTokenizer(): Buffer {
	const parts = [Buffer.from(Int32Array.of(8).buffer)];
	for (let token = 0; token < madeSizes.vocabulary; token++) {
		const byte = (token - 3).toString(16).toUpperCase().padStart(2, '0');
		const text = token < 3 ? ['<unk>', '<s>', '</s>'][token]! : token < 259 ? `<0x${byte}>` : `${token}`;
		parts.push(Buffer.from(Float32Array.of(0).buffer), Buffer.from(Int32Array.of(text.length).buffer), Buffer.from(text));
	}
	return Buffer.concat(parts);
}

/** A model made for the test: its .bin of llama2.c, with a tokenizer beside it. */
export async function made(seed?: number): Promise<string> {
	const folder = await temporary();
	await fs.writeFile(path.join(folder, `tok${madeSizes.vocabulary}.bin`), madeTokenizer());
	const place = path.join(folder, 'made.bin');
	await fs.writeFile(place, llama2cBytes(madeSizes, madeTensors(seed), { version: 0 }));
	return place;
}

/** Models by name: a made one, and those that are published where they are. */
export const names = ['made', ...(published ? ['stories260K', 'tinystories656k'] : [])] as const;

export async function pathOf(name: string): Promise<string> {
	if (name === 'made') return made();
	return path.join(published!, name === 'stories260K' ? 'stories260K/stories260K.bin' : name);
}

/** Tokens of stories where the model can read them, as it was trained; else random ones. */
export async function tokensFor(model: Llama, count: number, seed = 1): Promise<Int32Array> {
	const random = new Random(seed);
	if (!published || model.path.endsWith('made.bin')) {
		return Int32Array.from({ length: count }, () => random.integer(model.config.vocabulary));
	}
	const text = await fs.readFile(path.join(published, '..', 'text', 'tinystories.txt'), 'utf8');
	const stories = text.split('<|endoftext|>');
	const tokens: number[] = [];
	while (tokens.length < count) tokens.push(...model.tokenizer.encode(stories[random.integer(stories.length)]!.trim()));
	return Int32Array.from(tokens.slice(0, count));
}

/** Pieces of random lengths, at least 1. */
export function pieces<T extends { readonly length: number; slice(from: number, to: number): T }>(
	list: T,
	most: number,
	seed: number,
): T[] {
	const random = new Random(seed);
	const cut: T[] = [];
	for (let at = 0; at < list.length; ) {
		const end = Math.min(list.length, at + 1 + random.integer(most));
		cut.push(list.slice(at, end));
		at = end;
	}
	return cut;
}

/** Bytes held, once the rows that a model keeps from pass to pass are those of a single token. */
export async function settled(model: Llama): Promise<number> {
	using session = model.session({ cache: window(1) });
	await session.append(await tokensFor(model, 200));
	await session.append([1]);
	const own = session.bytes;
	await synchronize(); // what is queued holds its buffers
	return memory().bytes - own;
}
