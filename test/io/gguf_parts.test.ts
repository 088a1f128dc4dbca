import fs from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { full } from '../../lib/cache/index.js';
import { FormatError } from '../../lib/errors.js';
import { openPretrained } from '../../lib/io/open_pretrained.js';
import { Llama } from '../../lib/models/llama.js';
import { temporary } from '../files.js';
import { madeSizes, madeTensors, madeTokenizer } from '../models/llama/models.js';
import { type GgufTensorData, type GgufValue, ggufBytes } from './gguf_writer.js';
import { llamaGgufParts, weightNumbers } from './llama_gguf.js';
import { folderOf } from './models.js';

const { dim, hidden, layers, heads, kvHeads, vocabulary } = madeSizes;
const config = {
	architectures: ['LlamaForCausalLM'],
	hidden_size: dim,
	intermediate_size: hidden,
	num_hidden_layers: layers,
	num_attention_heads: heads,
	num_key_value_heads: kvHeads,
	vocab_size: vocabulary,
	max_position_embeddings: 64,
	rms_norm_eps: 1e-5,
	tie_word_embeddings: true,
	bos_token_id: 1,
	eos_token_id: 2,
};

type Metadata = Record<string, GgufValue>;
/** One file of a model: what it says of itself, its tensors and its name. */
interface Part {
	metadata: Metadata;
	tensors: Map<string, GgufTensorData>;
	name: string;
}

/** The made model's GGUF, taken apart. */
async function whole(): Promise<{ metadata: Metadata; tensors: Map<string, GgufTensorData>; bytes: Buffer }> {
	const made = await llamaGgufParts(await openPretrained(await folderOf(config, madeTensors())), 'q8_0');
	return { ...made, bytes: ggufBytes(made.metadata, made.tensors) };
}

const nameOf = (no: number, count: number) => `made-${String(no + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`;

/** As llama.cpp cuts a model: all metadata in the first part, and places in all. @param empty no tensors in the first */
async function parts(count: number, { empty = false } = {}): Promise<Part[]> {
	const { metadata, tensors } = await whole();
	const list = [...tensors];
	const holders = empty ? count - 1 : count;
	return Array.from({ length: count }, (_, no) => {
		const holder = empty ? no - 1 : no;
		const at = (i: number) => Math.round((i * list.length) / holders);
		return {
			metadata: {
				...(no === 0 ? metadata : {}),
				'split.no': { u16: no },
				'split.count': { u16: count },
				'split.tensors.count': { i32: list.length },
			},
			tensors: new Map(holder < 0 ? [] : list.slice(at(holder), at(holder + 1))),
			name: nameOf(no, count),
		};
	});
}

async function write(list: readonly Part[]): Promise<string[]> {
	const folder = await temporary();
	await fs.writeFile(path.join(folder, `tok${vocabulary}.bin`), madeTokenizer());
	const places: string[] = [];
	for (const { metadata, tensors, name } of list) {
		places.push(path.join(folder, name));
		await fs.writeFile(places.at(-1)!, ggufBytes(metadata, tensors));
	}
	return places;
}

test.each([
	['two', 2, {}],
	['three, the first without tensors', 3, { empty: true }],
	['as many as there are tensors', 29, {}],
])('%s: by any of them, the weights, the configuration and the logits of the whole file', async (_, count, options) => {
	const { bytes, tensors } = await whole();
	expect(tensors.size).toBe(9 * layers + 2);
	const folder = await temporary();
	await fs.writeFile(path.join(folder, 'made.gguf'), bytes);
	const one = await openPretrained(path.join(folder, 'made.gguf'));
	const places = await write(await parts(count, options));
	for (const place of [places[0]!, places[1]!, places.at(-1)!]) {
		const files = await openPretrained(place);
		expect(files.path).toBe(place);
		expect(files.config).toEqual(one.config);
		expect(files.metadata!['general.name']).toBe('test');
		expect([...files.weights.keys()]).toEqual([...one.weights.keys()]);
		for (const name of one.weights.keys()) expect(await weightNumbers(files, name), name).toEqual(await weightNumbers(one, name));
		expect(new Set([...files.weights.values()].map((weight) => weight.path)).size).toBe(count - ('empty' in options ? 1 : 0));
	}
	const tokenizer = path.join(path.dirname(places[0]!), `tok${vocabulary}.bin`);
	using all = await Llama.load(one.path, { tokenizer });
	using some = await Llama.load(places[1]!, { tokenizer });
	using a = all.session({ cache: full() });
	using b = some.session({ cache: full() });
	expect(await b.next([1, 7, 9])).toEqual((await a.next([1, 7, 9])).slice());
	expect(await some.hash()).toBe(await all.hash());
});

test('a file that is one of one is whole, whatever its name', async () => {
	const [only] = await parts(1);
	const [place] = await write([{ ...only!, name: 'x.bin' }]);
	expect((await openPretrained(place!)).weights.size).toBe(9 * layers + 3);
});

/** Which file is opened, what is done to the parts before, and what is said of which file. */
const wrong: [string, number, (list: Part[]) => void, number, string][] = [
	['a part that is missing', 0, (list) => list.splice(1, 1), 1, 'this is not there, expected part 2 of 3'],
	['the first part is missing', 2, (list) => list.splice(0, 1), 0, 'this is not there, expected part 1 of 3'],
	['a part twice', 0, (list) => (list[2] = { ...list[1]!, name: list[2]!.name }), 2, '`split.no` is 1, expected 2, as its name says'],
	[
		'a part of a model in four',
		0,
		(list) => (list[1]!.metadata['split.count'] = { u16: 4 }),
		1,
		'`split.count` is 4, expected 3, as part 1 has it',
	],
	[
		'a part of a model with more tensors',
		2,
		(list) => (list[0]!.metadata['split.tensors.count'] = { i32: 30 }),
		0,
		'`split.tensors.count` is 30, expected 29, as part 3 has it',
	],
	['a part that says nothing', 0, (list) => (list[1]!.metadata = {}), 1, '`split.no` is not there, expected 1, as its name says'],
	[
		'a part of another architecture',
		0,
		(list) => (list[1]!.metadata['general.architecture'] = 'qwen2'),
		1,
		'`general.architecture` is "qwen2", expected "llama", as the first part has it',
	],
	[
		'a tensor in two parts',
		0,
		(list) => {
			const [[name, tensor]] = list[0]!.tensors as unknown as [[string, GgufTensorData]];
			list[1]!.tensors.delete([...list[1]!.tensors.keys()][0]!);
			list[1]!.tensors.set(name, tensor);
		},
		1,
		'there is a tensor `token_embd.weight`, expected none that another part has',
	],
	[
		'a tensor too few',
		1,
		(list) => list[2]!.tensors.delete('output_norm.weight'),
		1,
		'the 3 parts have 28 tensors, expected 29 (`split.tensors.count`)',
	],
	[
		'a tensor too many',
		0,
		(list) => list[2]!.tensors.set('more', { ...list[2]!.tensors.get('output_norm.weight')! }),
		2,
		'`more` is one more than the 29 tensors of `split.tensors.count`',
	],
	[
		'a weight of another shape',
		0,
		(list) => list[2]!.tensors.set('output_norm.weight', { type: 'f32', shape: [8], data: new Uint8Array(32) }),
		2,
		'`output_norm.weight` has shape [8], expected [32]',
	],
	[
		'a place past the end',
		1,
		(list) => (list[1]!.metadata['split.no'] = { u16: 3 }),
		1,
		'`split.no` is 3, expected an integer from 0 to 2',
	],
	[
		'absurdly many',
		1,
		(list) => (list[1]!.metadata['split.count'] = { u16: 65535 }),
		1,
		'`split.count` is 65535, expected an integer from 0 to 10000',
	],
	[
		'a name without a number',
		1,
		(list) => (list[1]!.name = 'made.gguf'),
		1,
		'this is part 2 of 3 by `split.no` and `split.count`, expected a name that ends in -00002-of-00003.gguf',
	],
];
test.each(wrong)('%s is refused, with the file', async (_, opened, change, at, message) => {
	const list = await parts(3);
	const names = list.map(({ name }) => name);
	const renamed = (no: number) => (list.includes(parted[no]!) ? parted[no]!.name : names[no]!);
	const parted = [...list];
	change(list);
	const folder = path.dirname((await write(list))[0]!);
	const [open, said] = [renamed(opened), renamed(at)];
	const error = await openPretrained(path.join(folder, open)).catch((reason: unknown) => reason);
	expect(error).toBeInstanceOf(FormatError);
	expect(error).toMatchObject({ path: path.join(folder, said) });
	expect((error as Error).message).toContain(message);
});

test('a part that was cut short', async () => {
	const places = await write(await parts(3));
	const bytes = await fs.readFile(places[2]!);
	await fs.writeFile(places[2]!, bytes.subarray(0, bytes.length - 32));
	await expect(openPretrained(places[0]!)).rejects.toMatchObject({ path: places[2], message: expect.stringContaining('truncated') });
});

test('a signal ends it between parts', async () => {
	const [place] = await write(await parts(2));
	await expect(openPretrained(place!, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
});
