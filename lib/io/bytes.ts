import type fs from 'node:fs/promises';
import { FormatError } from '../errors.js';

/**
 * Bytes `start` to `end` of a file, in memory of their own, so that they are aligned for every type of number. The caller has checked
 * that the file is that long.
 * @throws FormatError when the file ends sooner, because it was cut while it was read
 */
export async function readBytes(path: string, file: fs.FileHandle, start: number, end: number): Promise<Buffer> {
	const data = Buffer.from(new ArrayBuffer(end - start));
	for (let at = 0; at < data.length; ) {
		const { bytesRead } = await file.read(data, at, Math.min(data.length - at, 1 << 28), start + at);
		if (bytesRead === 0) throw new FormatError(path, 'the file ends here', { offset: start + at });
		at += bytesRead;
	}
	return data;
}
