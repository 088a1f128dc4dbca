import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';
import { SafetensorsFile, type StoredTensor, writeSafetensors } from '../lib/io/safetensors.js';
import { Random } from '../lib/random.js';

const folders: string[] = [];

afterAll(async () => {
	for (const folder of folders.splice(0)) await fs.rm(folder, { recursive: true, force: true });
});

/** A folder that is removed when the test file is done. */
export async function temporary(): Promise<string> {
	const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'oplus-test-'));
	folders.push(folder);
	return folder;
}

/** A file with these contents in a folder of its own. */
export async function file(name: string, contents: string | Uint8Array): Promise<string> {
	const place = path.join(await temporary(), name);
	await fs.writeFile(place, contents);
	return place;
}

/** Write a safetensors file again with other tensors or metadata. */
export async function altered(
	place: string,
	alter: (tensors: Map<string, StoredTensor>, metadata: Record<string, string>) => void,
): Promise<void> {
	const tensors = new Map<string, StoredTensor>();
	let metadata: Record<string, string>;
	{
		await using whole = await SafetensorsFile.open(place);
		for (const name of whole.names) tensors.set(name, await whole.read(name));
		metadata = { ...whole.metadata };
	}
	alter(tensors, metadata);
	await writeSafetensors(place, tensors, metadata);
}

/** Hourly rows of two channels with a daily cycle, a slow drift and noise, as the lines of a CSV file. */
export function hourly(rows: number, seed = 1): string {
	const random = new Random(seed);
	const lines = ['date,load,heat'];
	let drift = 0;
	for (let t = 0; t < rows; t++) {
		drift = 0.99 * drift + 0.1 * random.normal();
		const day = Math.sin((2 * Math.PI * t) / 24);
		const date = new Date(Date.UTC(2020, 0, 1, t)).toISOString().slice(0, 19).replace('T', ' ');
		lines.push(
			`${date},${(10 + 3 * day + drift + 0.2 * random.normal()).toFixed(4)},${(-5 - 2 * day ** 3 + drift + 0.2 * random.normal()).toFixed(4)}`,
		);
	}
	return `${lines.join('\n')}\n`;
}
