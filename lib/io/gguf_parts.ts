import { FormatError } from '../errors.js';
import { Fields, shown } from './fields.js';
import { exists } from './files.js';
import { type GgufHeader, mostTensors, readGgufHeader } from './gguf_header.js';
import { checkedTensors, type GgufTensors } from './gguf_tensors.js';
import type { StoredWeight } from './pretrained.js';

/** What a model's GGUF files say together. */
export interface GgufParts {
	/** The first of them, which has the metadata. */
	readonly path: string;
	readonly metadata: Readonly<Record<string, unknown>>;
	readonly tensors: GgufTensors;
}

/** As many shards as a Hugging Face folder may have. */
const mostParts = 10_000;

/**
 * Read the headers of a GGUF file, or of all files that are parts of the same model (`split.count` above 1): the others lie beside it, under
 * the name with their number. Parts are counted from 0 in `split.no`, and from 1 in names. Only the first has the model's metadata.
 * @throws FormatError a part that is missing, of another model or not at its place
 */
export async function readGgufParts(place: string, signal?: AbortSignal): Promise<GgufParts> {
	const header = await readGgufHeader(place);
	const split = splitOf(place, header);
	if (!split) return { path: place, metadata: header.metadata, tensors: checkedTensors(place, header) };
	const { base, no, count } = split;
	const tensors = new Map<string, () => StoredWeight>();
	let first = header;
	for (let i = 0; i < count; i++) {
		signal?.throwIfAborted();
		const file = i === no ? place : partPath(base, i, count);
		const part = i === no ? header : await readPart(file, i, split);
		if (i === 0) first = part;
		else sameArchitecture(file, part, first);
		for (const [name, tensor] of checkedTensors(file, part)) {
			if (tensors.size === split.tensors) {
				throw new FormatError(file, `\`${name}\` is one more than the ${split.tensors} tensors of \`split.tensors.count\``);
			}
			if (tensors.has(name)) throw new FormatError(file, `there is a tensor \`${name}\`, expected none that another part has`);
			tensors.set(name, tensor);
		}
	}
	if (tensors.size !== split.tensors) {
		throw new FormatError(place, `the ${count} parts have ${tensors.size} tensors, expected ${split.tensors} (\`split.tensors.count\`)`);
	}
	return { path: partPath(base, 0, count), metadata: first.metadata, tensors };
}

interface Split {
	/** The parts' path without number and extension. */
	readonly base: string;
	/** This part's place, from 0. */
	readonly no: number;
	readonly count: number;
	/** Of all parts together. */
	readonly tensors: number;
}

/** What a file says of the others that belong to it; null: it is whole. */
function splitOf(file: string, { metadata }: GgufHeader): Split | null {
	const fields = new Fields(file, metadata);
	const count = fields.integer('split.count', { least: 0, most: mostParts, otherwise: 1 });
	if (count <= 1) return null;
	const no = fields.integer('split.no', { least: 0, most: count - 1 });
	const tensors = fields.integer('split.tensors.count', { least: 0, most: mostTensors });
	const base = file.slice(0, -partSuffix(no, count).length);
	if (file !== partPath(base, no, count)) {
		const expected = `a name that ends in ${partSuffix(no, count)}`;
		throw new FormatError(file, `this is part ${no + 1} of ${count} by \`split.no\` and \`split.count\`, expected ${expected}`);
	}
	return { base, no, count, tensors };
}

async function readPart(file: string, no: number, split: Split): Promise<GgufHeader> {
	const { count, tensors } = split;
	if (!(await exists(file))) throw new FormatError(file, `this is not there, expected part ${no + 1} of ${count}`);
	const header = await readGgufHeader(file);
	const fields = new Fields(file, header.metadata);
	if (fields.value('split.no') !== no) throw fields.refuse('split.no', `${no}, as its name says`);
	for (const [name, expected] of Object.entries({ 'split.count': count, 'split.tensors.count': tensors })) {
		if (fields.value(name) !== expected) throw fields.refuse(name, `${expected}, as part ${split.no + 1} has it`);
	}
	return header;
}

/** Parts behind the first need not say what they are of; what they say must be the same. */
function sameArchitecture(file: string, part: GgufHeader, first: GgufHeader): void {
	const fields = new Fields(file, part.metadata);
	const name = 'general.architecture';
	const expected = first.metadata[name];
	if (fields.has(name) && fields.value(name) !== expected) throw fields.refuse(name, `${shown(expected)}, as the first part has it`);
}

/** As llama.cpp names the parts of a model: `model-00002-of-00003.gguf` is number 1. */
function partSuffix(no: number, count: number): string {
	const digits = (n: number) => String(n).padStart(5, '0');
	return `-${digits(no + 1)}-of-${digits(count)}.gguf`;
}

function partPath(base: string, no: number, count: number): string {
	return base + partSuffix(no, count);
}
