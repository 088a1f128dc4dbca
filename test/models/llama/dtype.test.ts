/** Weights converted when they are loaded: the same model as a file that has them so, and as close to the original as the type is. */
import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { full, window } from '../../../lib/cache/index.js';
import { devices, memory, synchronize } from '../../../lib/device.js';
import { ArgumentError, FormatError } from '../../../lib/errors.js';
import { openPretrained } from '../../../lib/io/open_pretrained.js';
import { blocks, type PretrainedFiles, type WeightType } from '../../../lib/io/pretrained.js';
import { Llama, type LlamaOptions } from '../../../lib/models/llama.js';
import type { WeightDtype } from '../../../lib/models/llama_convert.js';
import { Session } from '../../../lib/models/session.js';
import { Random } from '../../../lib/random.js';
import { temporary } from '../../files.js';
import { isSlow } from '../../harness.js';
import { ggufBytes } from '../../io/gguf_writer.js';
import { llamaGguf, llamaGgufParts } from '../../io/llama_gguf.js';
import { worst } from '../../numbers.js';
import { names, pathOf, tokensFor } from './models.js';

const types = ['f32', 'f16', 'bf16', 'q8_0'] as const;
// One file each, with pairs that are neighbours in both formats: a conversion to GGUF then leaves every sum in its order.
const subjects = names.filter((name) => name !== 'tinystories656k');

/** A GGUF of the model, and where its tokenizer is. */
async function stored(place: string, contents: Buffer): Promise<{ file: string; tokenizer: string }> {
	const { vocabulary } = (await openPretrained(place)).config;
	const file = path.join(await temporary(), 'model.gguf');
	await fs.writeFile(file, contents);
	return { file, tokenizer: path.join(path.dirname(place), `tok${vocabulary}.bin`) };
}

/** Logits behind each of a few prompts. */
async function logits(place: string, options: LlamaOptions, tokens: Int32Array): Promise<Float32Array[]> {
	using model = await Llama.load(place, options);
	const list: Float32Array[] = [];
	for (const length of [1, 7, 40]) {
		using session = model.session({ cache: full() });
		list.push((await session.next(tokens.subarray(0, length))).slice());
	}
	return list;
}

async function promptOf(place: string): Promise<Int32Array> {
	using model = await Llama.load(place);
	return tokensFor(model, 40, 91);
}

const farthest = (a: readonly Float32Array[], b: readonly Float32Array[]) => Math.max(...a.map((row, i) => worst(row, b[i]!)));

/** What rounding may at most change of each number: half a step between neighbours, and of f16 also the half of the smallest one. */
function roundingOf(type: WeightDtype, x: Float32Array): Float32Array {
	if (type === 'f32') return new Float32Array(x.length);
	if (type === 'f16') return x.map((each) => Math.max(2 ** -11 * Math.abs(each), 2 ** -25));
	if (type === 'bf16') return x.map((each) => 2 ** -9 * Math.abs(each));
	const steps = new Float32Array(x.length);
	for (let i = 0; i < x.length; i += 32) steps.fill(Math.max(...x.subarray(i, i + 32).map(Math.abs)) / 254, i, i + 32);
	return steps;
}

/** The model in f32 with every number of its matrices moved by as much as the type may round it, up or down by chance. */
async function shaken(files: PretrainedFiles, type: WeightDtype, seed: number): Promise<Buffer> {
	const { metadata, tensors } = await llamaGgufParts(files, 'f32');
	const random = new Random(seed);
	for (const { shape, data } of tensors.values()) {
		if (shape.length === 1) continue;
		const x = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
		const steps = roundingOf(shape.at(-1)! % blocks[type].numbers === 0 ? type : 'f16', x);
		for (let i = 0; i < x.length; i++) x[i]! += random.uniform() < 0.5 ? steps[i]! : -steps[i]!;
	}
	return ggufBytes(metadata, tensors);
}

describe.each(subjects)('%s', (name) => {
	test.each(types)('%s: the logits of a file that has them so, to the bit', async (type) => {
		const place = await pathOf(name);
		const tokens = await promptOf(place);
		const { file, tokenizer } = await stored(place, await llamaGguf(await openPretrained(place), type));
		expect(await logits(place, { dtype: type }, tokens)).toEqual(await logits(file, { tokenizer }, tokens));
	});

	test.each(['f16', 'bf16', 'q8_0'] as const)('%s: no further off than numbers moved by its roundings', async (type) => {
		const place = await pathOf(name);
		const tokens = await promptOf(place);
		const exact = await logits(place, {}, tokens);
		let bound = 0;
		for (let seed = 1; seed <= 4; seed++) {
			const { file, tokenizer } = await stored(place, await shaken(await openPretrained(place), type, seed));
			bound = Math.max(bound, farthest(await logits(file, { tokenizer }, tokens), exact));
		}
		const found = farthest(await logits(place, { dtype: type }, tokens), exact);
		expect(found).toBeGreaterThan(0);
		expect(found).toBeLessThanOrEqual(bound);
	});

	test('f32 of f32: nothing is converted', async () => {
		const place = await pathOf(name);
		const tokens = await promptOf(place);
		expect(await logits(place, { dtype: 'f32' }, tokens)).toEqual(await logits(place, {}, tokens));
	});
});

test.each(['f16', 'bf16', 'q8_0', 'q4_0'] as const)('from a file of %s to f32: its own numbers', async (type) => {
	const place = await pathOf('made');
	const tokens = await promptOf(place);
	const { file, tokenizer } = await stored(place, await llamaGguf(await openPretrained(place), type));
	const wide = await stored(place, await llamaGguf(await openPretrained(file), 'f32'));
	expect(await logits(file, { dtype: 'f32', tokenizer }, tokens)).toEqual(await logits(wide.file, { tokenizer }, tokens));
});

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	test.each(types)('%s: bytes are those of the types, and come back', async (type) => {
		const place = await pathOf(isSlow(device) ? 'made' : names.at(-1)!);
		const held = async () => {
			await synchronize(device);
			return memory(device).bytes;
		};
		const { weights } = await openPretrained(place);
		let [right, mapped] = [0, 0];
		for (const { shape, type: own } of new Set(weights.values())) {
			const count = shape.reduce((n, side) => n * side, 1);
			const used: WeightType = shape.length === 1 ? 'f32' : shape.at(-1)! % blocks[type].numbers === 0 ? type : 'f16';
			const bytes = (count / blocks[used].numbers) * blocks[used].bytes;
			right += bytes;
			if (device === 'cpu' && shape.length > 1 && used === own) mapped += bytes; // the file's own pages
		}
		const before = await held();
		const model = await Llama.load(place, { dtype: type, device });
		expect(model.bytes).toBe(right);
		const frequencies = 8 * model.config.rope.frequencies.length;
		expect((await held()) - before).toBe(right - mapped + frequencies);
		model.dispose();
		expect(await held()).toBe(before);
	});

	test('the made model runs in every type', async () => {
		const place = await pathOf('made');
		for (const dtype of types) {
			const tokens = await promptOf(place);
			const [here, there] = [await logits(place, { dtype, device }, tokens), await logits(place, { dtype }, tokens)];
			expect(farthest(here, there)).toBeLessThanOrEqual(1e-4); // as for weights that need no conversion (golden.test.ts)
		}
	});
});

test.each(['q4_0', 'F16', '', 'constructor', 16, null])('a dtype that is %s is refused before anything is opened', async (dtype) => {
	const error = await Llama.load('/nowhere', { dtype: dtype as WeightDtype }).catch((reason: unknown) => reason);
	expect(error).toBeInstanceOf(ArgumentError);
	const shown = typeof dtype === 'string' ? JSON.stringify(dtype) : String(dtype);
	expect((error as Error).message).toBe(`Llama.load: \`dtype\` is ${shown}, expected one of f32, f16, bf16, q8_0`);
});

test('a number that the type does not hold is named by its place, and nothing is left behind', async () => {
	const place = await pathOf('made');
	const weight = (await openPretrained(place)).weights.get('model.layers.1.mlp.up_proj.weight')!;
	const bytes = await fs.readFile(place);
	bytes.writeFloatLE(1e5, weight.offset + 4 * (2 * weight.shape[1]! + 3));
	await fs.writeFile(place, bytes);
	await synchronize();
	const before = memory().bytes;
	const error = await Llama.load(place, { dtype: 'f16' }).catch((reason: unknown) => reason);
	expect(error).toBeInstanceOf(FormatError);
	expect(error).toMatchObject({ path: place, offset: weight.offset + 4 * (2 * weight.shape[1]! + 3) });
	expect((error as Error).message).toContain('`model.layers.1.mlp.up_proj.weight`: a number at [2, 3]');
	expect((error as Error).message).toContain('too large for f16');
	await synchronize();
	expect(memory().bytes).toBe(before);
	for (const options of [{ dtype: 'bf16' }, { dtype: 'q8_0' }, { dtype: 'f16', verify: false }] as const) {
		using model = await Llama.load(place, options);
		expect(model.bytes).toBeGreaterThan(0);
	}
	bytes.writeFloatLE(NaN, weight.offset);
	await fs.writeFile(place, bytes);
	await expect(Llama.load(place, { dtype: 'q8_0' })).rejects.toMatchObject({ path: place, offset: weight.offset });
});

test('the file is let go of where all of it was converted', async () => {
	const place = await pathOf('made');
	const mapped = async () => existsSync('/proc/self/maps') && (await fs.readFile('/proc/self/maps', 'utf8')).includes(place);
	using model = await Llama.load(place, { dtype: 'bf16' });
	expect(model.bytes).toBeGreaterThan(0);
	expect(await mapped()).toBe(false);
});

test('a signal ends the loading, and nothing is left behind', async () => {
	const place = await pathOf('made');
	await synchronize();
	const before = memory().bytes;
	for (let turns = 0; turns < 12; turns += 3) {
		const stop = new AbortController();
		const loading = Llama.load(place, { dtype: 'q8_0', signal: stop.signal }).then(
			(model) => model.dispose(),
			(reason: unknown) => expect(reason).toMatchObject({ name: 'AbortError' }),
		);
		for (let i = 0; i < turns; i++) await new Promise(setImmediate);
		stop.abort();
		await loading;
		await synchronize();
		expect(memory().bytes, `after ${turns} turns`).toBe(before);
	}
});

test('snapshots belong to a model and a type', async () => {
	const place = await pathOf('made');
	using first = await Llama.load(place, { dtype: 'q8_0' });
	using second = await Llama.load(place, { dtype: 'q8_0' });
	using session = first.session({ cache: window(8) });
	await session.append([1, 5, 9, 4]);
	const bytes = await session.snapshot();
	using again = await Session.restore(second, bytes);
	expect(await again.next([3])).toEqual((await session.next([3])).slice());
	const hashes = new Set([await first.hash()]);
	for (const dtype of [undefined, 'f16', 'bf16'] as const) {
		using other = await Llama.load(place, dtype && { dtype });
		hashes.add(await other.hash());
		await expect(Session.restore(other, bytes)).rejects.toThrow('belongs to the model with hash');
	}
	expect(hashes.size).toBe(4);
	using same = await Llama.load(place, { dtype: 'f32' });
	using plain = await Llama.load(place);
	expect(await same.hash()).toBe(await plain.hash()); // it is the file's own type
});
