import fs from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { openPretrained } from '../../lib/io/open_pretrained.js';
import { type PretrainedFiles, weightBytes } from '../../lib/io/pretrained.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { Random } from '../../lib/random.js';
import { temporary } from '../files.js';
import type { GgufValue } from './gguf_writer.js';
import { llamaGguf } from './llama_gguf.js';
import { folderOf, llama2cBytes, published, randomTensors, smallConfig, smallSizes } from './models.js';
import { mutated, mutatedJson } from './mutations.js';

const mostSeconds = 2;
const mostMemory = 200e6;

/** A model of which one file is spoilt: what is opened, the file, and its part that is not weights. */
interface Specimen {
	readonly open: string;
	readonly spoil: string;
	readonly header: Buffer;
	readonly size: number;
	readonly json?: 'file' | 'safetensors';
}

async function specimen(open: string, spoil: string, header: number, json?: Specimen['json']): Promise<Specimen> {
	const whole = await fs.readFile(spoil);
	return { open, spoil, header: whole.subarray(0, header), size: whole.length, ...(json && { json }) };
}

/** The published files, copied to where they may be changed; small ones of the same formats where they are not there. */
async function originals(): Promise<{ folder: string; first: string; second: string }> {
	const place = await temporary();
	const [first, second] = [path.join(place, 'first.bin'), path.join(place, 'second.bin')];
	if (!published) {
		const tensors = randomTensors(smallSizes, { tied: true });
		await fs.writeFile(first, llama2cBytes(smallSizes, tensors));
		await fs.writeFile(second, llama2cBytes(smallSizes, tensors, { version: 1 }));
		return { folder: await folderOf({ ...smallConfig, tie_word_embeddings: true }, tensors), first, second };
	}
	const folder = path.join(place, 'model');
	await fs.mkdir(folder);
	const from = (name: string) => fs.readFile(path.join(published!, name));
	for (const name of ['config.json', 'model.safetensors']) {
		await fs.writeFile(path.join(folder, name), await from(`tinystories656k/${name}`));
	}
	await fs.writeFile(first, await from('stories260K/stories260K.bin'));
	await fs.writeFile(second, await from('stories260K/stories260K_export_v1.bin'));
	return { folder, first, second };
}

/** A copy of a folder with nothing but its configuration, changed, in which other weights find a place. */
async function beside(folder: string, change: object = {}): Promise<string> {
	const other = await temporary();
	const config = JSON.parse(await fs.readFile(path.join(folder, 'config.json'), 'utf8')) as object;
	await fs.writeFile(path.join(other, 'config.json'), JSON.stringify({ ...config, ...change }));
	return other;
}

async function sharded(): Promise<string> {
	const folder = await beside(await folderOf({ ...smallConfig, tie_word_embeddings: false }, new Map()));
	const tensors = [...randomTensors(smallSizes)];
	const map: Record<string, string> = {};
	for (const [shard, part] of [tensors.slice(0, 9), tensors.slice(9)].entries()) {
		const name = `model-0000${shard + 1}-of-00002.safetensors`;
		await writeSafetensors(path.join(folder, name), new Map(part));
		for (const [tensor] of part) map[tensor] = name;
	}
	await fs.writeFile(path.join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: { total_size: 1 }, weight_map: map }));
	return folder;
}

/** One spoilt file; what is wrong with it. The weights behind the header stay where the file ends, whatever they are then. */
async function spoil(random: Random, { spoil: place, header, size, json }: Specimen): Promise<string> {
	const asJson = json && random.integer(2) === 1;
	let fresh: Buffer;
	let what: string;
	if (asJson) {
		const start = json === 'safetensors' ? 8 : 0;
		const edit = mutatedJson(random, header.toString('utf8', start));
		what = edit.what;
		fresh = Buffer.concat([Buffer.alloc(start), Buffer.from(edit.text)]);
		if (json === 'safetensors') fresh.writeBigUInt64LE(BigInt(fresh.length - 8));
	} else {
		({ bytes: fresh, what } = mutated(random, header));
	}
	await fs.writeFile(place, fresh, { flag: 'r+' });
	if (what.startsWith('cut')) await fs.truncate(place, fresh.length);
	else if (random.integer(8) > 0) await fs.truncate(place, size - header.length + fresh.length);
	else {
		const end = random.integer(2) ? size + 1 + random.integer(1000) : random.integer(size);
		await fs.truncate(place, end);
		what += `, and the file ends at byte ${end}`;
	}
	return what;
}

async function restore({ spoil: place, header, size }: Specimen): Promise<void> {
	await fs.truncate(place, size);
	await fs.writeFile(place, header, { flag: 'r+' });
}

/** What was promised of files that were taken for good. */
async function complaint(files: PretrainedFiles): Promise<string | null> {
	const { config, weights } = files;
	if (config.rope.frequencies.length !== config.headDim / 2) return 'frequencies of another length';
	if (![...config.rope.frequencies, config.rope.magnitude].every((each) => Number.isFinite(each) && each >= 0))
		return 'frequencies that are none';
	if (config.slidingWindow.length !== config.layers) return 'windows of another length';
	if ([...config.eos, config.bos ?? 0].some((id) => !(id >= 0 && id < config.vocabulary))) return 'a token outside of the vocabulary';
	if (!Number.isFinite(config.epsilon)) return 'an epsilon that is none';
	const sizes = new Map<string, number>();
	for (const [name, { path: place, type, shape, offset, bytes }] of weights) {
		if (!sizes.has(place)) sizes.set(place, (await fs.stat(place)).size);
		if (!Number.isSafeInteger(offset) || offset < 0 || offset + bytes > sizes.get(place)!) return `${name} lies outside of its file`;
		if (bytes !== weightBytes(type, shape)) return `${name} has ${bytes} bytes`;
	}
	const distinct = new Map([...weights.values()].map((weight) => [`${weight.path} ${weight.offset}`, weight]));
	if (distinct.size < weights.size - 1) return 'two weights in one place';
	const sorted = [...distinct.values()].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.offset - b.offset));
	for (let i = 1; i < sorted.length; i++) {
		const [before, weight] = [sorted[i - 1]!, sorted[i]!];
		if (before.path === weight.path && weight.offset < before.offset + before.bytes) return 'two weights that overlap';
	}
	return null;
}

/** @returns what went wrong, null if nothing did, and whether the file was taken */
async function attempt(open: string): Promise<{ wrong: string | null; taken: boolean }> {
	const before = { memory: process.memoryUsage.rss(), peak: process.resourceUsage().maxRSS, time: performance.now() };
	let wrong: string | null = null;
	let taken = false;
	try {
		wrong = await complaint(await openPretrained(open));
		taken = true;
	} catch (error) {
		if (!(error instanceof FormatError)) wrong = `threw ${(error as Error)?.stack ?? error}`;
		else if (!error.path.startsWith(open) || !error.message.startsWith(error.path)) wrong = `an error of ${error.path}: ${error.message}`;
		else if (error.message.length > error.path.length + 400) wrong = `an endless message: ${error.message.slice(0, 500)}`;
	}
	const seconds = (performance.now() - before.time) / 1000;
	if (seconds > mostSeconds) wrong = `took ${seconds} s`;
	const peak = process.resourceUsage().maxRSS;
	if (peak > before.peak && peak * 1024 - before.memory > mostMemory) wrong = `took ${(peak * 1024 - before.memory) / 1e6} MB`;
	return { wrong, taken };
}

async function specimens(): Promise<Record<string, { cases: number; make: () => Promise<Specimen> }>> {
	const { folder, first, second } = await originals();
	const tensors = path.join(folder, 'model.safetensors');
	const headerEnd = 8 + Number((await fs.readFile(tensors)).readBigUInt64LE());
	const gguf = async (type: 'f16' | 'q8_0') => {
		const files = await openPretrained(folder);
		const small = files.config.dim % 32 !== 0 ? 'f16' : type;
		// A few tokens, under a name that says nothing of how many there are: most of what is spoilt shall be what counts.
		const more: Record<string, GgufValue> = {
			'tokenizer.ggml.merges': ['a b', '\ufeff', ''],
			'tokenizer.ggml.scores': Float32Array.of(1, 2),
			'llama.rope.scaling.type': 'yarn',
			'llama.rope.scaling.factor': { f32: 2 },
		};
		const bytes = await llamaGguf(files, small, { ...more, 'general.alignment': { u32: 32 } });
		const place = path.join(await temporary(), 'model.gguf');
		await fs.writeFile(place, bytes);
		return specimen(place, place, bytes.indexOf('output_norm.weight') + 60);
	};
	const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 128, beta_fast: 32, beta_slow: 1 };
	const qwen = {
		architectures: ['Qwen2ForCausalLM'],
		sliding_window: 16,
		use_sliding_window: true,
		max_window_layers: 1,
		rope_scaling: yarn,
	};
	return {
		'config.json': { cases: 500, make: () => specimen(folder, path.join(folder, 'config.json'), 1 << 20, 'file') },
		'config.json of a Qwen2': {
			cases: 500,
			make: async () => {
				const other = await folderOf({ ...smallConfig, ...qwen }, randomTensors(smallSizes, { biases: ['q', 'k', 'v'] }));
				return specimen(other, path.join(other, 'config.json'), 1 << 20, 'file');
			},
		},
		'model.safetensors': { cases: 600, make: () => specimen(folder, tensors, headerEnd, 'safetensors') },
		'model.safetensors.index.json': {
			cases: 300,
			make: async () => {
				const parts = await sharded();
				return specimen(parts, path.join(parts, 'model.safetensors.index.json'), 1 << 20, 'file');
			},
		},
		'llama2.c, first export': { cases: 400, make: () => specimen(first, first, 28) },
		'llama2.c, version 1': { cases: 400, make: () => specimen(second, second, 40) },
		'GGUF of f16': { cases: 700, make: () => gguf('f16') },
		'GGUF of q8_0': { cases: 700, make: () => gguf('q8_0') },
	};
}

test('spoilt files are refused by name or promise nothing that they do not have', async () => {
	const failures: string[] = [];
	const counts: Record<string, { refused: number; taken: number }> = {};
	let seed = 0;
	for (const [name, { cases, make }] of Object.entries(await specimens())) {
		const one = await make();
		expect(await attempt(one.open), name).toEqual({ wrong: null, taken: true });
		const count = (counts[name] = { refused: 0, taken: 0 });
		for (let i = 0; i < cases; i++) {
			const what = await spoil(new Random(++seed), one);
			const { wrong, taken } = await attempt(one.open);
			if (wrong) failures.push(`${name}, seed ${seed}, ${what}: ${wrong}`);
			count[taken ? 'taken' : 'refused']++;
			await restore(one);
		}
		expect(await attempt(one.open), `${name}, whole again`).toEqual({ wrong: null, taken: true });
	}
	expect(failures).toEqual([]);
	// The damage is neither always seen nor always harmless: every number of a llama2.c header counts, and few of a config.json do.
	for (const [name, { refused }] of Object.entries(counts)) expect(refused, `${name}: refused`).toBeGreaterThan(50);
	for (const name of ['config.json', 'GGUF of f16', 'GGUF of q8_0']) expect(counts[name]!.taken, `${name}: taken`).toBeGreaterThan(10);
	expect(seed).toBeGreaterThanOrEqual(3000);
}, 120_000);
