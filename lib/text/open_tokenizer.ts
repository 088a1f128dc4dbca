import fs from 'node:fs/promises';
import path from 'node:path';
import { FormatError } from '../errors.js';
import { readBytes } from '../io/bytes.js';
import { openFile } from '../io/fields.js';
import { exists } from '../io/files.js';
import { ggufTokenizer } from './gguf.js';
import { readHuggingFaceTokenizer } from './hugging_face.js';
import { readLlama2cTokenizer } from './llama2c.js';
import type { Tokenizer } from './tokenizer.js';

export interface OpenTokenizerOptions {
	/** V of the model, which the tokens have to fit. @default as many as there are tokens */
	readonly vocabulary?: number | undefined;
	/** What a GGUF says of itself, by key: the file at `path` is not read then. */
	readonly metadata?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * The tokenizer of a model: a Hugging Face folder or its tokenizer.json, a llama2.c tokenizer, a GGUF's metadata; or, for a llama2.c
 * model, which has none in it, `tok{V}.bin` or `tokenizer.bin` beside it.
 * @throws FormatError there is no tokenizer, or it is not what it should be
 */
export async function openTokenizer(file: string, options: OpenTokenizerOptions = {}): Promise<Tokenizer> {
	const { metadata, vocabulary } = options;
	if (metadata) return ggufTokenizer(file, metadata, { vocabulary });
	if (await isFolder(file)) return readHuggingFaceTokenizer(path.join(file, 'tokenizer.json'), { vocabulary });
	if (path.extname(file) === '.json') return readHuggingFaceTokenizer(file, { vocabulary });
	const start = await firstBytes(file);
	if (start.toString('latin1', 0, 4) === 'GGUF') {
		throw new FormatError(file, 'this is a GGUF without the metadata that was read from it, expected both');
	}
	return readLlama2cTokenizer(isLlama2cModel(start) ? await besideModel(file, vocabulary) : file, { vocabulary });
}

async function isFolder(file: string): Promise<boolean> {
	return (await exists(file)) && (await fs.stat(file)).isDirectory();
}

async function firstBytes(path: string): Promise<Buffer> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	return readBytes(path, file, 0, Math.min(size, 8));
}

/**
 * Whether this is llama2.c's model and no tokenizer: its second number is a width, an integer above 0; a tokenizer's is a score, and no
 * score is a float as small as those bits make (below 10⁻³⁸).
 */
function isLlama2cModel(start: Buffer): boolean {
	if (start.toString('latin1', 0, 4) === '24ka') return true; // 'ak42', little-endian
	const second = start.length === 8 ? start.readInt32LE(4) : 0;
	return second > 0 && second < 2 ** 23;
}

async function besideModel(file: string, vocabulary: number | undefined): Promise<string> {
	const names = [...(vocabulary === undefined ? [] : [`tok${vocabulary}.bin`]), 'tokenizer.bin'];
	for (const name of names) {
		const place = path.join(path.dirname(file), name);
		if (await exists(place)) return place;
	}
	throw new FormatError(file, `a llama2.c model has no tokenizer in it and there is no ${names.join(' or ')} beside it, expected one`);
}
