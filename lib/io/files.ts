import fs from 'node:fs/promises';
import path from 'node:path';
import writeFile from 'write-file-atomic';

/**
 * Write a file whole or not at all: a new file beside it is written, flushed to disk and renamed over the old one, so that a
 * full disk or a crash leaves what was there before. Folders on the way are made.
 * @throws the file system's own error (`code` ENOSPC, EACCES, …), with the path in the message
 */
export async function writeAtomic(file: string, data: string | Uint8Array | readonly Uint8Array[]): Promise<void> {
	await fs.mkdir(path.dirname(path.resolve(file)), { recursive: true });
	await writeFile(file, typeof data === 'string' ? data : bytesOf(data));
}

function bytesOf(data: Uint8Array | readonly Uint8Array[]): Buffer {
	if (!(data instanceof Uint8Array)) return Buffer.concat(data);
	return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
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
