import type fs from 'node:fs/promises';
import { FormatError } from '../errors.js';
import { readBytes } from './bytes.js';

/** Bytes of a value by its type's number; 8 is a string, 9 a list. */
const widths: Readonly<Record<number, number>> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const stringType = 8;
const listType = 9;

/** A header of this length holds some ten times the largest vocabulary; @huggingface/gguf has room for a little more. */
const longestHeader = 40_000_000;
const longestKey = 65_535; // as the format says
const longestString = 1_000_000;
const longestList = 1_000_000; // the package's own limit
const mostListed = 4_000_000;
const mostDimensions = 4; // ggml's own

/** @huggingface/gguf reads files in pieces of this many bytes. */
const piece = 2_000_000;

/** Bytes that are read at a time; more than the longest string. */
const windowBytes = 1 << 20;

/** A string that @huggingface/gguf does not read right. */
export interface Mended {
	readonly key: string;
	/** Its place in a list, null for a value of its own. */
	readonly index: number | null;
	readonly text: string;
}

/**
 * Walks over the header of a GGUF without keeping it, and checks that every count and length in it is possible: the bytes are in the file, no
 * list is longer than what follows, no key comes twice.
 *
 * It keeps the few strings that @huggingface/gguf 0.4.6 gets wrong. That package cuts a string off where its 2 MB piece of the file ends if
 * the string is the last of its value (it waits for an error from reading numbers, and text gives none), and it drops U+FEFF from the start
 * of a string: a token of Llama 2's vocabulary.
 */
export class GgufWalk {
	readonly #path: string;
	readonly #file: fs.FileHandle;
	readonly #size: number;
	/** Bytes `#start` on of the file. */
	#window: Buffer = Buffer.alloc(0);
	#start = 0;
	#at = 0;
	#listed = 0;
	readonly #mended: Mended[] = [];

	constructor(path: string, file: fs.FileHandle, size: number) {
		this.#path = path;
		this.#file = file;
		this.#size = size;
	}

	/** @returns the byte that the header ends before, without what fills it up to the alignment */
	async walk(): Promise<{ end: number; mended: readonly Mended[] }> {
		await this.#need(24);
		const head = this.#take(8);
		if (head.toString('latin1', 0, 4) !== 'GGUF') throw this.#refuse('this does not begin with GGUF', 0);
		const version = head.readUInt32LE(4);
		if (version !== 2 && version !== 3) {
			const swapped = head.readUInt32BE(4) <= 3 ? ' (its bytes are swapped: big-endian)' : '';
			throw this.#refuse(`the version is ${version}${swapped}, expected 2 or 3`, 4);
		}
		// The shortest tensor and the shortest value take 24 and 13 bytes.
		const tensors = this.#count('tensors', Math.floor(this.#size / 24));
		const values = this.#count('values', Math.min(Math.floor(this.#size / 13), 100_000));
		await this.#names(values, 'key', 13, (key) => this.#value(key));
		await this.#names(tensors, 'tensor', 24, () => this.#tensor());
		return { end: this.#at, mended: this.#mended };
	}

	async #names(count: number, what: string, least: number, each: (name: string) => Promise<void>): Promise<void> {
		const seen = new Set<string>();
		for (let i = 0; i < count; i++) {
			await this.#need(least);
			const offset = this.#at;
			const length = this.#count(`bytes of a ${what}`, longestKey);
			await this.#need(length + 4);
			const name = this.#take(length).toString('latin1');
			if (!/^[\x20-\x7e]+$/.test(name) || name === '__proto__') throw this.#refuse(`a ${what} has no plain name`, offset);
			if (seen.has(name)) throw this.#refuse(`the ${what} \`${name.slice(0, 64)}\` comes twice`, offset);
			seen.add(name);
			await each(name);
		}
	}

	async #value(key: string): Promise<void> {
		const type = this.#take(4).readUInt32LE();
		if (type === stringType) return this.#string(key, null);
		if (type !== listType) {
			const width = this.#width(key, type);
			await this.#need(width);
			this.#at += width;
			return;
		}
		await this.#need(12);
		const inner = this.#take(4).readUInt32LE();
		const length = this.#count(`entries of \`${key.slice(0, 64)}\``, longestList);
		if ((this.#listed += length) > mostListed) throw this.#refuse(`lists have more than ${mostListed} entries in all`, this.#at);
		if (inner === stringType) {
			for (let i = 0; i < length; i++) {
				// Waiting costs more than the string, where there is nothing to wait for.
				if (this.#left < 12) await this.#need(8);
				await this.#string(key, i);
			}
			return;
		}
		const bytes = length * this.#width(key, inner);
		if (bytes > this.#size - this.#at)
			throw this.#refuse(`\`${key.slice(0, 64)}\` has ${length} entries, expected them in the file`, this.#at);
		this.#at += bytes;
	}

	#width(key: string, type: number): number {
		const width = widths[type];
		if (width === undefined)
			throw this.#refuse(`\`${key.slice(0, 64)}\` is of type ${type}, expected a scalar, a string or a list of these`, this.#at);
		return width;
	}

	async #string(key: string, index: number | null): Promise<void> {
		await this.#need(8);
		const length = this.#count(`bytes of \`${key.slice(0, 64)}\``, longestString);
		await this.#need(length);
		const end = this.#at + length;
		const bytes = this.#take(length);
		const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
		if (marked || Math.floor(end / piece) > Math.floor((end - length) / piece)) {
			this.#mended.push({ key, index, text: bytes.toString('utf8') });
		}
	}

	async #tensor(): Promise<void> {
		const dimensions = this.#take(4).readUInt32LE();
		if (dimensions > mostDimensions)
			throw this.#refuse(`a tensor has ${dimensions} dimensions, expected at most ${mostDimensions}`, this.#at - 4);
		await this.#need(8 * dimensions + 12);
		for (let i = 0; i < dimensions; i++) this.#count('numbers along a dimension', 2 ** 32 - 1);
		this.#at += 4; // the type
		this.#count('bytes before a tensor', this.#size);
	}

	/** A count of 64 bits, in the window already. */
	#count(what: string, most: number): number {
		const count = this.#take(8).readBigUInt64LE();
		if (count > BigInt(most)) throw this.#refuse(`there are ${count} ${what}, expected at most ${most}`, this.#at - 8);
		return Number(count);
	}

	get #left(): number {
		return this.#start + this.#window.length - this.#at;
	}

	#take(bytes: number): Buffer {
		const from = this.#at - this.#start;
		this.#at += bytes;
		return this.#window.subarray(from, from + bytes);
	}

	/** See to it that the window has the next bytes. */
	async #need(bytes: number): Promise<void> {
		if (bytes <= this.#left) return;
		const end = this.#at + bytes;
		if (end > this.#size) throw this.#refuse('the file ends in its header', this.#size);
		if (end > longestHeader) throw this.#refuse(`the header goes on here, expected at most ${longestHeader} bytes`, this.#at);
		this.#window = await readBytes(this.#path, this.#file, this.#at, Math.min(this.#at + windowBytes, this.#size));
		this.#start = this.#at;
	}

	#refuse(message: string, offset: number): FormatError {
		return new FormatError(this.#path, message, { offset });
	}
}
