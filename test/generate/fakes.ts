/** A tokenizer of bytes and decoders that stand in for a model: small, deterministic, and they note what they are fed. */
import type { BatchDecoder, Decoder } from '../../lib/generate/decoder.js';
import type { Tokenizer } from '../../lib/text/tokenizer.js';

/**
 * Tokens 0 to 255 are bytes, 256 begins and 257 ends a text, and behind them stand the given pieces, which may be any bytes. As with
 * some real vocabularies, a leading space is dropped at the beginning of a text.
 */
export class ByteTokenizer implements Tokenizer {
	readonly size: number;
	readonly bos = 256;
	readonly eos = [257];
	readonly chatTemplate: string | null;
	readonly #pieces: readonly Uint8Array[];

	constructor(pieces: readonly (string | readonly number[])[] = [], chatTemplate: string | null = null) {
		this.chatTemplate = chatTemplate;
		this.#pieces = pieces.map((piece) => (typeof piece === 'string' ? Buffer.from(piece) : Uint8Array.from(piece)));
		this.size = 258 + pieces.length;
	}

	encode(text: string, { special = true } = {}): Int32Array {
		return Int32Array.from([...(special ? [this.bos] : []), ...Buffer.from(text)]);
	}

	decode(tokens: ArrayLike<number>): string {
		let first = true;
		const bytes = Array.from(tokens, (token) => {
			const own = this.bytes(token, first);
			first &&= this.isSpecial(token);
			return own;
		});
		return Buffer.concat(bytes).toString();
	}

	bytes(token: number, first = false): Uint8Array {
		if (!Number.isInteger(token) || token < 0 || token >= this.size) throw new Error(`the tokenizer has no token ${token}`);
		const bytes = token < 256 ? Uint8Array.of(token) : (this.#pieces[token - 258] ?? new Uint8Array(0));
		return first && bytes[0] === 32 ? bytes.subarray(1) : bytes;
	}

	isSpecial(token: number): boolean {
		return token === this.bos || this.eos.includes(token);
	}

	name(token: number): string {
		return `<${token}>`;
	}
}

/** Logits [V] that depend on all tokens so far. */
export function hashed(tokens: readonly number[], V: number): Float32Array {
	let hash = 17;
	for (const token of tokens) hash = Math.imul(hash ^ (token + 1), 0x9e3779b1) ^ (hash >>> 13);
	return Float32Array.from({ length: V }, (_, token) => {
		let x = Math.imul(hash ^ token, 0x85ebca6b);
		x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
		return ((x ^ (x >>> 16)) >>> 0) / 2 ** 30;
	});
}

/** Logits that make the script come out at temperature 0, after a prompt of `start` tokens. */
export function scripted(script: ArrayLike<number>, start: number, end = 257) {
	return (tokens: readonly number[], V: number): Float32Array => {
		const logits = new Float32Array(V);
		logits[script[tokens.length - start] ?? end] = 1;
		return logits;
	};
}

export class FakeDecoder implements Decoder {
	readonly vocabulary: number;
	readonly fed: number[] = [];
	/** The arguments of every call. */
	readonly calls: number[][] = [];
	/** Waited for before each token is taken. */
	before: (token: number, signal: AbortSignal | undefined) => Promise<void> | void = () => undefined;
	readonly #logits: (tokens: readonly number[], V: number) => Float32Array;
	readonly #out: Float32Array;
	#busy = false;

	constructor(vocabulary: number, logits: (tokens: readonly number[], V: number) => Float32Array = hashed) {
		this.vocabulary = vocabulary;
		this.#logits = logits;
		this.#out = new Float32Array(vocabulary);
	}

	get position(): number | undefined {
		return this.fed.length;
	}

	async next(tokens: ArrayLike<number>, { signal }: { readonly signal?: AbortSignal } = {}): Promise<Float32Array> {
		if (this.#busy) throw new Error('the decoder is in use');
		this.#busy = true;
		this.calls.push(Array.from(tokens));
		this.#out.fill(Number.NaN); // what the last call returned is no longer there
		try {
			for (const token of Array.from(tokens)) {
				await this.before(token, signal);
				signal?.throwIfAborted();
				this.fed.push(token);
			}
			await Promise.resolve();
			this.#out.set(this.#logits(this.fed, this.vocabulary));
			return this.#out;
		} finally {
			this.#busy = false;
		}
	}
}

/** Fakes side by side. */
export class FakeBatch implements BatchDecoder {
	readonly batch: number;
	readonly vocabulary: number;
	readonly rows: readonly FakeDecoder[];
	readonly calls: number[][][] = [];
	readonly #out: Float32Array;

	constructor(rows: readonly FakeDecoder[]) {
		this.rows = rows;
		this.batch = rows.length;
		this.vocabulary = rows[0]!.vocabulary;
		this.#out = new Float32Array(this.batch * this.vocabulary);
	}

	get positions(): readonly number[] {
		return this.rows.map((row) => row.fed.length);
	}

	async next(tokens: readonly ArrayLike<number>[], options: { readonly signal?: AbortSignal } = {}): Promise<Float32Array> {
		if (tokens.length !== this.batch) throw new Error(`found ${tokens.length} rows`);
		this.calls.push(tokens.map((row) => Array.from(row)));
		for (const [b, row] of this.rows.entries()) this.#out.set(await row.next(tokens[b]!, options), b * this.vocabulary);
		return this.#out;
	}
}

/** Everything that a generator gives. */
export async function all<T>(generator: AsyncIterable<T>): Promise<T[]> {
	const found: T[] = [];
	for await (const each of generator) found.push(each);
	return found;
}
