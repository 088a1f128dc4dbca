import type fs from 'node:fs/promises';
import { FormatError } from '../errors.js';
import { readBytes } from './bytes.js';

/** Some ten times what the largest vocabulary takes. */
const longestHeader = 40_000_000;

/** Bytes that are read at a time; more than the longest string. */
const windowBytes = 1 << 20;

/** Walks over the header of a GGUF, a window of the file in memory: `need` sees to it that bytes are there, all else takes them. */
export class GgufReader {
	readonly path: string;
	readonly size: number;
	readonly #file: fs.FileHandle;
	/** Bytes `#start` on of the file. */
	#window: Buffer = Buffer.alloc(0);
	#start = 0;
	#at = 0;

	/** @param size bytes of the file */
	constructor(path: string, file: fs.FileHandle, size: number) {
		this.path = path;
		this.#file = file;
		this.size = size;
	}

	/** Bytes from the start of the file. */
	get at(): number {
		return this.#start + this.#at;
	}

	/** How many bytes are there to be taken. */
	get left(): number {
		return this.#window.length - this.#at;
	}

	/** @throws FormatError the file ends sooner, or the header is absurdly long */
	async need(bytes: number): Promise<void> {
		if (bytes <= this.left) return;
		const { at } = this;
		if (at + bytes > this.size) throw this.refuse('the file ends in its header', this.size);
		if (at + bytes > longestHeader) throw this.refuse(`the header goes on here, expected at most ${longestHeader} bytes`, at);
		this.#window = await readBytes(this.path, this.#file, at, Math.min(at + windowBytes, this.size));
		this.#start = at;
		this.#at = 0;
	}

	take(bytes: number): Buffer {
		const from = this.#at;
		this.#at += bytes;
		return this.#window.subarray(from, this.#at);
	}

	/** A count of 64 bits. */
	count(what: string, most: number): number {
		const at = this.#at;
		this.#at += 8;
		const low = this.#window.readUInt32LE(at);
		if (low <= most && this.#window.readUInt32LE(at + 4) === 0) return low;
		const count = this.#window.readBigUInt64LE(at);
		if (count <= BigInt(most)) return Number(count);
		throw this.refuse(`there are ${count} ${what}, expected at most ${most}`, this.at - 8);
	}

	/** A string with its length before it, if all of it is there and it is not too long; nothing is taken otherwise. */
	string(longest: number): string | undefined {
		const from = this.#at + 8;
		if (from > this.#window.length || this.#window.readUInt32LE(from - 4) !== 0) return undefined;
		const length = this.#window.readUInt32LE(from - 8);
		if (length > longest || from + length > this.#window.length) return undefined;
		this.#at = from + length;
		return this.#window.toString('utf8', from, this.#at);
	}

	refuse(message: string, offset: number): FormatError {
		return new FormatError(this.path, message, { offset });
	}
}
