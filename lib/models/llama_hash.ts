import { createHash } from 'node:crypto';
import fs from 'node:fs/promises';
import { readBytes } from '../io/bytes.js';
import type { PretrainedFiles } from '../io/pretrained.js';
import { typeUsed, type WeightDtype } from './llama_convert.js';

/** Bytes looked at of each end of a weight: a whole model would take as long as reading it. */
const ENDS = 4096;

/**
 * What tells a model from others: its configuration, and of every weight the name, type, shape and the bytes at both ends. The same
 * model in another format, or in another place on the disk of the same format, may and may not have the same hash, in this order.
 * Converted weights make another model of it.
 */
export async function hashOf({ config, weights }: PretrainedFiles, dtype?: WeightDtype): Promise<string> {
	const { rope } = config;
	const digest = createHash('sha256');
	digest.update(JSON.stringify({ ...config, rope: { ...rope, frequencies: [...rope.frequencies] } }));
	const files = new Map<string, fs.FileHandle>();
	try {
		for (const [name, weight] of weights) {
			const { type, shape, path, offset, bytes } = weight;
			const used = typeUsed(weight, dtype);
			digest.update(JSON.stringify([name, type, shape]));
			if (shape.length > 1 && used !== type) digest.update(JSON.stringify({ used }));
			const file = files.get(path) ?? (await fs.open(path));
			files.set(path, file);
			const part = Math.min(ENDS, bytes);
			digest.update(await readBytes(path, file, offset, offset + part));
			digest.update(await readBytes(path, file, offset + bytes - part, offset + bytes));
		}
	} finally {
		for (const file of files.values()) await file.close();
	}
	return digest.digest('hex');
}
