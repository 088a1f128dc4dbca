import { randomUUID } from 'node:crypto';
import fs from 'node:fs/promises';
import path from 'node:path';

/**
 * Write a file whole or not at all: a new file beside it is written, flushed to disk and renamed over the old one, so that a
 * full disk or a crash leaves what was there before. Folders on the way are made.
 *
 * (Not write-file-atomic: its version 6 writes with one call and does not look how much was taken, so that a disk which
 * fills up half-way leaves a shortened file in the old one's place.)
 * @throws the file system's own error (`code` ENOSPC, EACCES, …)
 */
export async function writeAtomic(file: string, data: string | Uint8Array | readonly Uint8Array[]): Promise<void> {
	await fs.mkdir(path.dirname(path.resolve(file)), { recursive: true });
	const fresh = `${file}.${randomUUID()}.tmp`;
	try {
		await fill(fresh, typeof data === 'string' ? [Buffer.from(data)] : data instanceof Uint8Array ? [data] : data);
		await fs.rename(fresh, file);
	} catch (error) {
		await fs.rm(fresh, { force: true });
		throw error;
	}
}

async function fill(file: string, chunks: readonly Uint8Array[]): Promise<void> {
	await using handle = await fs.open(file, 'wx');
	for (const chunk of chunks) await handle.writeFile(chunk); // goes on after what is there, until all is written
	await handle.sync();
}

/** Whether there is something at this path. @throws what the file system says other than that there is nothing */
export async function exists(file: string): Promise<boolean> {
	try {
		await fs.stat(file);
		return true;
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
		throw error;
	}
}
