import zlib from 'node:zlib';
import { FormatError } from '../errors.js';
import { openFile } from './fields.js';

/**
 * The letters of proteins: the 20 amino acids, then X any, B aspartic acid or asparagine, Z glutamic acid or glutamine, U selenocysteine,
 * O pyrrolysine, J leucine or isoleucine.
 */
export const aminoAcids = 'ACDEFGHIKLMNPQRSTVWYXBZUOJ';

export interface FastaRecord {
	/** The word after `>`. */
	readonly id: string;
	/** What stands behind it on the line. */
	readonly description: string;
	/** In capital letters, without the `*` that some files end proteins with. */
	readonly sequence: string;
}

/** Some of a file: a record begins, or residues of the record that began last, or it ends. */
export type FastaPiece =
	| { readonly type: 'begin'; readonly id: string; readonly description: string }
	/** Capital letters in ASCII; only valid until the next piece. */
	| { readonly type: 'residues'; readonly residues: Uint8Array }
	| { readonly type: 'end' };

export interface FastaOptions {
	/** Capital letters that a sequence may be made of; small ones are taken for them. @default aminoAcids */
	readonly letters?: string | undefined;
	readonly signal?: AbortSignal | undefined;
	/** Called now and then with the share of the file that was read, from 0 to 1. */
	readonly onProgress?: ((done: number) => void) | undefined;
}

/** The longest header line, in bytes. */
const longestHeader = 2 ** 16;

/** The longest sequence that is read as one: the longest known protein has 45,000 residues. */
const longestSequence = 2 ** 24;

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const greater = 0x3e;
const star = 0x2a;
const byteOrderMark = [0xef, 0xbb, 0xbf];

/**
 * The records of a FASTA file one by one, read as they are asked for: a file of any size takes the memory of its longest record.
 * @param path the file, plain or gzip (its first bytes say which)
 * @throws FormatError as `readFastaPieces`; a sequence of more than 16,777,216 residues
 */
export async function* readFasta(path: string, options: FastaOptions = {}): AsyncGenerator<FastaRecord, void> {
	const parts: string[] = [];
	let length = 0;
	let records = 0;
	let header = { id: '', description: '' };
	for await (const piece of readFastaPieces(path, options)) {
		if (piece.type === 'begin') {
			records++;
			header = { id: piece.id, description: piece.description };
			parts.length = length = 0;
		} else if (piece.type === 'residues') {
			length += piece.residues.length;
			if (length > longestSequence) {
				const where = `record ${records} (${short(header.id)})`;
				throw new FormatError(path, `${where}: found more than ${longestSequence} residues, expected fewer`);
			}
			parts.push(Buffer.from(piece.residues.buffer, piece.residues.byteOffset, piece.residues.length).toString('latin1'));
		} else yield { ...header, sequence: parts.join('') };
	}
}

/**
 * A FASTA file piece by piece, for sequences of any length: what is held is one piece of some 64 KB. Lines end with LF or CR LF, sequences
 * may be wrapped or not, small letters count as capitals, `*` may end a sequence, empty lines are passed over.
 * @throws FormatError with the record, and line and column in bytes: no header, no name, no residues, a character that is no residue, a
 * header line of more than 65,536 bytes; gzip data that is damaged or ends early
 */
export async function* readFastaPieces(path: string, options: FastaOptions = {}): AsyncGenerator<FastaPiece, void> {
	const parser = new Parser(path, options.letters ?? aminoAcids);
	for await (const bytes of bytesOf(path, options, () => parser.place)) yield* parser.feed(bytes);
	yield* parser.finish();
}

/** The bytes of a file, unpacked. @param place where the reader is, for messages */
async function* bytesOf(path: string, { signal, onProgress }: FastaOptions, place: () => string): AsyncGenerator<Buffer, void> {
	signal?.throwIfAborted();
	await using handle = await openFile(path);
	const { size } = await handle.stat();
	const magic = Buffer.alloc(2);
	const packed = (await handle.read(magic, 0, 2, 0)).bytesRead === 2 && magic[0] === 0x1f && magic[1] === 0x8b;
	const source = handle.createReadStream({ start: 0, autoClose: false });
	const unpacked = packed ? source.pipe(zlib.createGunzip()) : source;
	source.on('error', (error) => unpacked.destroy(error));
	const leave = () => unpacked.destroy(new Error('aborted')); // what is thrown is the signal's own reason
	signal?.addEventListener('abort', leave, { once: true });
	try {
		for await (const bytes of unpacked as AsyncIterable<Buffer>) {
			signal?.throwIfAborted();
			yield bytes;
			onProgress?.(source.bytesRead / Math.max(1, size));
		}
	} catch (error) {
		signal?.throwIfAborted();
		const { code } = error as NodeJS.ErrnoException;
		if (!code?.startsWith('Z_')) throw error;
		const what = code === 'Z_BUF_ERROR' ? 'the gzip data ends early' : `the gzip data is damaged (${(error as Error).message})`;
		throw new FormatError(path, `${what}, after ${place()}, expected all of it`, { offset: source.bytesRead, cause: error });
	} finally {
		signal?.removeEventListener('abort', leave);
		unpacked.destroy();
		source.destroy();
	}
}

/** Reads byte by byte, from whatever pieces they come in. */
class Parser {
	readonly #path: string;
	/** The capital letter of each byte that is a residue; 0 for the others. */
	readonly #capitals = new Uint8Array(256);
	/** Of the byte that comes next, from 1. */
	#line = 1;
	#column = 1;
	/** What is there of a header line that is not whole. */
	#header: number[] | null = null;
	/** Records begun. */
	#records = 0;
	#id = '';
	#headerLine = 1;
	/** Residues of this record. */
	#residues = 0;
	/** Where the `*` was that ended it. */
	#star: { readonly line: number; readonly column: number } | null = null;
	/** A CR that only an LF may follow. */
	#return = false;
	/** Bytes seen of a mark at the file's start; 3: it is over. */
	#mark = 0;

	constructor(path: string, letters: string) {
		this.#path = path;
		for (const letter of letters) {
			this.#capitals[letter.charCodeAt(0)] = letter.charCodeAt(0);
			this.#capitals[letter.toLowerCase().charCodeAt(0)] = letter.charCodeAt(0);
		}
	}

	/** The record that is being read. */
	get place(): string {
		return this.#records === 0 ? 'the start' : `record ${this.#records} (${short(this.#id)}) began`;
	}

	*feed(bytes: Uint8Array): Generator<FastaPiece> {
		const residues = new Uint8Array(bytes.length);
		let filled = 0;
		for (let i = 0; i < bytes.length; i++) {
			const byte = bytes[i]!;
			if (this.#mark < 3 && byte === byteOrderMark[this.#mark]) {
				this.#mark++;
				continue;
			}
			this.#mark = 3;
			if (this.#header) {
				if (byte === lineFeed) yield this.#begin();
				else this.#inHeader(byte);
			} else if (byte === lineFeed) {
				this.#return = false;
				this.#nextLine();
			} else if (byte === greater && this.#column === 1) {
				if (filled) yield { type: 'residues', residues: residues.subarray(0, filled) };
				filled = 0;
				if (this.#records) yield this.#end();
				this.#header = [];
				this.#headerLine = this.#line;
				this.#column = 2;
			} else {
				const letter = this.#capitals[byte]!;
				if (letter === 0 || this.#star || this.#return || this.#records === 0) this.#other(byte);
				else {
					residues[filled++] = letter;
					this.#residues++;
				}
				this.#column++;
			}
		}
		if (filled) yield { type: 'residues', residues: residues.subarray(0, filled) };
	}

	*finish(): Generator<FastaPiece> {
		if (this.#header) yield this.#begin();
		if (this.#return) this.#refuse(carriageReturn, this.#column - 1);
		if (this.#records === 0) throw new FormatError(this.#path, 'the file is empty, expected records that begin with `>`', { line: 1 });
		yield this.#end();
	}

	#nextLine(): void {
		this.#line++;
		this.#column = 1;
	}

	#inHeader(byte: number): void {
		const header = this.#header!;
		if (header.length === longestHeader) {
			throw new FormatError(this.#path, `the header of record ${this.#records + 1} is longer than ${longestHeader} bytes, expected fewer`, {
				line: this.#line,
			});
		}
		header.push(byte);
		this.#column++;
	}

	#begin(): FastaPiece {
		const bytes = this.#header!;
		if (bytes.at(-1) === carriageReturn) bytes.pop();
		this.#header = null;
		this.#records++;
		const at = { line: this.#line, column: 2 };
		const control = bytes.findIndex((byte) => (byte < 0x20 && byte !== 0x09) || byte === 0x7f);
		if (control >= 0) {
			throw new FormatError(this.#path, `found ${named(bytes[control]!)} in the header of record ${this.#records}, expected text`, {
				...at,
				column: control + 2,
			});
		}
		const [, id, description] = /^(\S*)\s*(.*?)\s*$/s.exec(decode(bytes))!;
		if (id === '') throw new FormatError(this.#path, `record ${this.#records} has no name, expected one right after \`>\``, at);
		this.#id = id!;
		this.#residues = 0;
		this.#star = null;
		this.#nextLine();
		return { type: 'begin', id: id!, description: description! };
	}

	#end(): FastaPiece {
		if (this.#residues === 0) {
			throw new FormatError(this.#path, `record ${this.#records} (${short(this.#id)}) has no residues, expected at least one`, {
				line: this.#headerLine,
			});
		}
		return { type: 'end' };
	}

	/** A byte that is no residue, or none where it stands. */
	#other(byte: number): void {
		if (this.#return) this.#refuse(carriageReturn, this.#column - 1);
		if (byte === carriageReturn) this.#return = true;
		else if (this.#records === 0) {
			throw new FormatError(this.#path, `found ${named(byte)} before the first header, expected a line that begins with \`>\``, {
				line: this.#line,
				column: this.#column,
			});
		} else if (this.#star) {
			const where = `record ${this.#records} (${short(this.#id)})`;
			throw new FormatError(this.#path, `${where}: found \`*\` inside the sequence, expected it only at the end`, this.#star);
		} else if (byte === star && this.#residues > 0) this.#star = { line: this.#line, column: this.#column };
		else this.#refuse(byte, this.#column);
	}

	#refuse(byte: number, column: number): never {
		const where = this.#records === 0 ? '' : `record ${this.#records} (${short(this.#id)}): `;
		throw new FormatError(this.#path, `${where}found ${named(byte)}, expected a residue`, { line: this.#line, column });
	}
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** UTF-8 if it is, else Latin-1. */
function decode(bytes: readonly number[]): string {
	const data = Buffer.from(bytes);
	try {
		return utf8.decode(data);
	} catch {
		return data.toString('latin1');
	}
}

/** A byte, as it can be read in a sentence. */
function named(byte: number): string {
	return byte > 0x20 && byte < 0x7f ? `\`${String.fromCharCode(byte)}\`` : `byte 0x${byte.toString(16).padStart(2, '0')}`;
}

function short(id: string): string {
	return id.length > 60 ? `${id.slice(0, 57)}…` : id;
}
