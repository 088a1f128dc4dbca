import { createHash } from 'node:crypto';
import { ArgumentError } from '../errors.js';
import { type FastaOptions, readFastaPieces } from '../io/fasta.js';
import { philox } from '../philox.js';
import type { Dataset } from '../train/fit.js';
import { encodeProtein, proteinTokens } from './protein_tokens.js';
import type { TokenBatch } from './tokens.js';

/** What is predicted: the next residue from those before, or hidden ones from all others. */
export type ProteinMode = 'causal' | 'masked';

export type ProteinPart = 'train' | 'validation' | 'test';

/** `P53508` of `sp|P53508|CSSA1_ECOLX`, as UniProt writes names; of others the whole name. */
export function accessionOf(id: string): string {
	return /^\w+\|([^|]+)\|/.exec(id)?.[1] ?? id;
}

/**
 * Which part a record is in: the first 32 bits of the SHA-256 of its accession, as a share of 2³²; below 0.8 it is for training, below 0.9
 * for validation, else for the test. It depends on nothing else, so a file that grows leaves every record where it was.
 */
export function partOf(id: string): ProteinPart {
	const share = createHash('sha256').update(accessionOf(id)).digest().readUInt32BE(0) / 2 ** 32;
	return share < 0.8 ? 'train' : share < 0.9 ? 'validation' : 'test';
}

/** Sequences one after the other. */
export class ProteinSet {
	records = 0;
	/** How often each of `proteinTokens.letters` is there. */
	readonly counts = new Float64Array(proteinTokens.residues);
	#tokens = new Uint8Array(2 ** 16);
	#filled = 0;

	/** Ids, one byte each: `begin`, residues and `end` of every record in the order of the file. */
	get tokens(): Uint8Array {
		return this.#tokens.subarray(0, this.#filled);
	}

	get residues(): number {
		return this.#filled - 2 * this.records;
	}

	push(ids: ArrayLike<number>): void {
		if (this.#filled + ids.length > this.#tokens.length) {
			const larger = new Uint8Array(2 * (this.#filled + ids.length));
			larger.set(this.tokens);
			this.#tokens = larger;
		}
		this.#tokens.set(ids, this.#filled);
		this.#filled += ids.length;
		for (let i = 0; i < ids.length; i++) {
			const id = ids[i]!;
			if (id < proteinTokens.residues) this.counts[id]!++;
			else if (id === proteinTokens.begin) this.records++;
		}
	}
}

/**
 * A FASTA file in its three parts, a byte a residue.
 * @throws FormatError as `readFastaPieces`
 */
export async function readProteins(path: string, options: FastaOptions = {}): Promise<Record<ProteinPart, ProteinSet>> {
	const parts = { train: new ProteinSet(), validation: new ProteinSet(), test: new ProteinSet() };
	let part = parts.train;
	for await (const piece of readFastaPieces(path, options)) {
		if (piece.type === 'begin') {
			part = parts[partOf(piece.id)];
			part.push([proteinTokens.begin]);
		} else part.push(piece.type === 'end' ? [proteinTokens.end] : encodeProtein(piece.residues));
	}
	return parts;
}

/** Share of residues that are hidden in masked mode. */
export const maskedShare = 0.15;

/** Which random numbers say what is hidden. */
interface ProteinDraw {
	readonly seed: number;
	/** Which one of the windows in a stream. */
	readonly example: number;
	/** From 1 to 2³² − 1; 0 is for the places of windows. */
	readonly stream: number;
}

/**
 * What is asked of some tokens: what the model is shown, and which id is right at each place, −1 where nothing is asked.
 *
 * Causal: the residue that follows; `begin` and `end` are not asked for, so that figures are of residues alone. Masked: each residue is
 * asked for with a probability of 15 %, and shown as `mask` if it is (all of them: none is left or exchanged, as BERT does, so that
 * accuracy is of residues that were hidden); where none is drawn, the one that came nearest.
 * @param tokens of T places, and in causal mode the one after them
 * @param draw which residues are hidden: always the same for the same numbers
 */
export function question(mode: ProteinMode, tokens: ArrayLike<number>, ids: Int32Array, targets: Int32Array, draw: ProteinDraw): void {
	const asked = (id: number) => (id < proteinTokens.residues ? id : -1);
	if (mode === 'causal') {
		for (let t = 0; t < ids.length; t++) {
			ids[t] = tokens[t]!;
			targets[t] = asked(tokens[t + 1]!);
		}
		return;
	}
	const threshold = maskedShare * 2 ** 32;
	const blocks = Math.ceil(ids.length / 4);
	let nearest = -1;
	let lowest = Infinity;
	let found = 0;
	for (let block = 0; block < blocks; block++) {
		const words = philox(draw.seed, draw.example * blocks + block, draw.stream);
		for (let t = 4 * block; t < Math.min(4 * block + 4, ids.length); t++) {
			ids[t] = tokens[t]!;
			targets[t] = -1;
			if (asked(tokens[t]!) < 0) continue;
			const word = words[t % 4]!;
			if (word < lowest) [lowest, nearest] = [word, t];
			if (word >= threshold) continue;
			found++;
			targets[t] = tokens[t]!;
			ids[t] = proteinTokens.mask;
		}
	}
	if (found === 0 && nearest >= 0) {
		targets[nearest] = tokens[nearest]!;
		ids[nearest] = proteinTokens.mask;
	}
}

export interface ProteinWindowOptions {
	readonly mode: ProteinMode;
	/** Tokens of a window. */
	readonly length: number;
	/**
	 * Windows that begin anywhere, drawn with the seed: for training.
	 * @default as many as lie side by side, from the first token on: for tests
	 */
	readonly drawn?: number | undefined;
	/** Of the places of drawn windows, and of what is hidden. @default 0 */
	readonly seed?: number | undefined;
}

/**
 * Windows of a set's tokens, over the borders of its records: the concatenated sequences of the Performer paper, of any length.
 * @see Choromanski et al. 2021, "Rethinking attention with Performers", section 4.4
 */
export class ProteinWindows implements Dataset<TokenBatch> {
	readonly length: number;
	readonly mode: ProteinMode;
	/** Tokens of a window. */
	readonly window: number;
	readonly #set: ProteinSet;
	readonly #options: ProteinWindowOptions;
	/** Places where a window can begin. */
	readonly #places: number;

	constructor(set: ProteinSet, options: ProteinWindowOptions) {
		const { mode, length, drawn, seed = 0 } = options;
		if (!Number.isInteger(length) || length < 4) throw new ArgumentError(`ProteinWindows: length is ${length}, expected an integer from 4`);
		if (!Number.isSafeInteger(seed) || seed < 0)
			throw new ArgumentError(`ProteinWindows: seed is ${seed}, expected an integer in [0, 2⁵³)`);
		const ahead = mode === 'causal' ? 1 : 0;
		this.#places = set.tokens.length - length - ahead + 1;
		if (this.#places < 1) {
			throw new ArgumentError(
				`ProteinWindows: the set has ${set.tokens.length} tokens, expected at least ${length + ahead} for one window of ${length}`,
			);
		}
		this.mode = mode;
		this.window = length;
		this.length = drawn ?? Math.floor((this.#places - 1) / length) + 1;
		this.#set = set;
		this.#options = options;
	}

	/** `[B · length]`: what the model is shown, and what is right (−1: nothing is asked). @param indices which windows */
	arrays(indices: readonly number[]): { readonly ids: Int32Array; readonly targets: Int32Array } {
		const { drawn, seed = 0 } = this.#options;
		const { window: T, mode } = this;
		const ids = new Int32Array(indices.length * T);
		const targets = new Int32Array(indices.length * T);
		indices.forEach((index, b) => {
			if (!(index >= 0 && index < this.length))
				throw new ArgumentError(`ProteinWindows: window ${index}, expected one below ${this.length}`);
			const [word] = philox(seed, index, 0);
			const start = drawn === undefined ? index * T : Math.floor((word / 2 ** 32) * this.#places);
			const tokens = this.#set.tokens.subarray(start, start + T + 1);
			question(mode, tokens, ids.subarray(b * T, (b + 1) * T), targets.subarray(b * T, (b + 1) * T), { seed, example: index, stream: 1 });
		});
		return { ids, targets };
	}

	/** What `Performer.loss` takes: see `arrays`, a list for each window. */
	batch(indices: readonly number[]): TokenBatch {
		const { ids, targets } = this.arrays(indices);
		const rows = (all: Int32Array) => indices.map((_, b) => all.subarray(b * this.window, (b + 1) * this.window));
		return { x: rows(ids), y: rows(targets) };
	}
}
