import fs from 'node:fs/promises';
import { readBytes } from './bytes.js';
import { openFile } from './fields.js';
import { openGguf } from './gguf.js';
import { openHuggingFace } from './hugging_face.js';
import { openLlama2c } from './llama2c.js';
import type { PretrainedFiles } from './pretrained.js';

/**
 * Open a pretrained model of the LLaMA family: a folder as Hugging Face keeps them (config.json, model.safetensors or its shards), a GGUF
 * file or any of several that are parts of one, or a .bin of llama2.c. Which of them it is, is seen from what is there and not from its
 * name. Weights are not read, only where they lie.
 * @throws FormatError with the file that is not what it should be; the file system's own error when there is nothing at this path
 */
export async function openPretrained(
	path: string,
	{ signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<PretrainedFiles> {
	signal?.throwIfAborted();
	if ((await fs.stat(path)).isDirectory()) return openHuggingFace(path, { signal });
	return (await magic(path)) === 'GGUF' ? openGguf(path, { signal }) : openLlama2c(path);
}

async function magic(path: string): Promise<string> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	return (await readBytes(path, file, 0, Math.min(size, 4))).toString('latin1');
}
