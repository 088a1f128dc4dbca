import type { Readable } from 'node:stream';
import { FormatError } from '../errors.js';
import { openFile } from '../io/fields.js';
import type { Tokenizer } from '../text/tokenizer.js';

/** Characters that are encoded at a time. */
const CHUNK = 2 ** 16;

/** Characters on each side of a cut that show whether it changes tokens: far more than the longest token has. */
const REACH = 256;

/** Places that are looked at for a cut before it is waited for more text. */
const TRIES = 16;

/** The longest text that is read as one. */
const mostBytes = 2 ** 26;

/** What `-` stands for in messages. */
export function nameOf(file: string): string {
	return file === '-' ? 'stdin' : file;
}

/** @throws FormatError there is no such file, or it cannot be read */
export async function checkText(file: string): Promise<void> {
	if (file !== '-') await (await openFile(file)).close();
}

/** Some of a file's text. */
interface Some {
	readonly text: string;
	/** Bytes read so far, of how many; of a stream, NaN. */
	readonly read: number;
	readonly size: number;
}

/**
 * A text file piece by piece. A byte order mark at its start is left out.
 * @param file `-`: stdin
 * @throws FormatError it is not UTF-8; the file system's own error
 */
async function* textOf(file: string, signal: AbortSignal): AsyncGenerator<Some, void> {
	await using handle = file === '-' ? null : await openFile(file);
	const size = handle ? (await handle.stat()).size : NaN;
	const stream: Readable = handle ? handle.createReadStream({ autoClose: false }) : process.stdin;
	const leave = () => stream.destroy();
	signal.addEventListener('abort', leave, { once: true });
	const decoder = new TextDecoder('utf-8', { fatal: true });
	const decode = (bytes?: Uint8Array): string => {
		try {
			return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode();
		} catch (cause) {
			throw new FormatError(nameOf(file), 'found bytes that are not UTF-8, expected text', { cause });
		}
	};
	try {
		let read = 0;
		for await (const bytes of stream as AsyncIterable<Buffer>) {
			signal.throwIfAborted();
			read += bytes.length;
			yield { text: decode(bytes), read, size };
		}
		yield { text: decode(), read, size };
	} catch (error) {
		signal.throwIfAborted(); // or it would be the stream's word for having been destroyed
		throw error;
	} finally {
		signal.removeEventListener('abort', leave);
	}
}

/** A text file as one text. @throws FormatError it is not UTF-8, or very long */
export async function readText(file: string, signal: AbortSignal): Promise<string> {
	const parts: string[] = [];
	for await (const { text, read } of textOf(file, signal)) {
		if (read > mostBytes) throw new FormatError(nameOf(file), `the text has more than ${mostBytes} bytes, expected fewer`);
		parts.push(text);
	}
	return parts.join('');
}

/** Some of a file's tokens. */
export interface SomeTokens {
	readonly tokens: Int32Array;
	/** Bytes of the text so far, in UTF-8. */
	readonly bytes: number;
	/** How much of the file this is, from 0 to 1; NaN where nobody knows. */
	readonly done: number;
}

/**
 * The tokens of a text file, without those that encoding puts before and behind a text. They are the same as if the text were encoded as
 * one; but where the tokenizer allows it, no more than some chunks of it are in memory.
 * @param options.chunk characters that are encoded at a time. @default 65536
 */
export async function* encodeFile(
	file: string,
	tokenizer: Tokenizer,
	{ signal, chunk = CHUNK }: { readonly signal: AbortSignal; readonly chunk?: number },
): AsyncGenerator<SomeTokens, void> {
	const encode = (text: string) => tokenizer.encode(text, { special: false });
	let waiting = '';
	let enough = chunk;
	let bytes = 0;
	let done = 0;
	for await (const { text, read, size } of textOf(file, signal)) {
		waiting += text;
		bytes += Buffer.byteLength(text);
		done = read / size;
		while (waiting.length >= enough) {
			const place = cut(waiting, enough, encode);
			if (!place) {
				enough = 2 * waiting.length; // so that looking in vain does not take longer than encoding
				break;
			}
			const tokens = encode(waiting.slice(0, place.end));
			waiting = waiting.slice(place.start);
			enough = chunk;
			yield { tokens, bytes: bytes - Buffer.byteLength(waiting), done };
		}
	}
	if (waiting !== '') yield { tokens: encode(waiting), bytes, done };
}

/**
 * Where a text may be cut, near its first `length` characters, so that the tokens of the two parts are those of the whole; a space
 * between them may have to be left out, because the tokenizer puts one in front of every text. That it may be cut there is seen from
 * encoding what is around: together, and apart.
 */
function cut(text: string, length: number, encode: (text: string) => Int32Array): { end: number; start: number } | null {
	let tries = 0;
	for (let at = Math.min(length, text.length) - REACH; at > REACH && tries < TRIES; at--) {
		const newLine = text[at - 1] === '\n' && isSolid(text, at);
		const space = text[at] === ' ' && isSolid(text, at - 1) && isSolid(text, at + 1);
		if (!newLine && !space) continue;
		tries++;
		const from = whole(text, at - REACH);
		const to = whole(text, at + REACH);
		for (const start of space ? [at, at + 1] : [at]) {
			const apart = [...encode(text.slice(from, at)), ...encode(text.slice(start, to))];
			const together = encode(text.slice(from, to));
			if (apart.length === together.length && apart.every((token, i) => token === together[i])) return { end: at, start };
		}
	}
	return null;
}

const isSolid = (text: string, at: number) => /\S/.test(text[at] ?? ' ');

/** This place, or the one before where it is inside a character. */
function whole(text: string, at: number): number {
	const unit = text.charCodeAt(at);
	return unit >= 0xdc00 && unit <= 0xdfff ? at - 1 : at;
}
