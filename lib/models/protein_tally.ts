import { ArgumentError, ShapeError } from '../errors.js';
import { proteinTokens } from './protein_tokens.js';

export interface ProteinScore {
	/** e to the mean loss: of 20 residues all as likely, 20. */
	readonly perplexity: number;
	/** Mean −ln of the probability of the right residue, in nats. */
	readonly nll: number;
	/** Share of places where the likeliest token is the right one. */
	readonly accuracy: number;
	/** Residues that were asked for. */
	readonly residues: number;
	/** The same residues by how frequent each is in the training part, whatever is around. */
	readonly unigram: { readonly perplexity: number; readonly accuracy: number };
}

/**
 * Loss of each residue where nothing but its frequency is known, in nats. Each letter is counted once more than it was found, so that
 * none is impossible.
 */
function unigramLosses(counts: ArrayLike<number>): Float64Array {
	if (counts.length !== proteinTokens.residues) {
		throw new ShapeError(`unigram: found ${counts.length} counts, expected one for each of ${proteinTokens.letters}`);
	}
	const list = Float64Array.from(counts);
	const wrong = list.findIndex((count) => !(count >= 0 && count < Infinity));
	if (wrong >= 0) throw new ArgumentError(`unigram: count ${wrong} is ${list[wrong]}, expected a number from 0 up`);
	const all = list.reduce((sum, count) => sum + count + 1, 0);
	return list.map((count) => Math.log(all / (count + 1)));
}

/** Sums up how well residues are predicted, beside their frequencies. */
export class ProteinTally {
	readonly #unigram: Float64Array;
	/** The residue that is guessed where nothing is known. */
	readonly #commonest: number;
	#nll = 0;
	#right = 0;
	#residues = 0;
	#unigramNll = 0;
	#unigramRight = 0;

	/** @param counts of residues in the training part, in the order of `proteinTokens.letters` */
	constructor(counts: ArrayLike<number>) {
		this.#unigram = unigramLosses(counts);
		this.#commonest = this.#unigram.indexOf(Math.min(...this.#unigram));
	}

	get residues(): number {
		return this.#residues;
	}

	/** @param logits `[N, V]` @param targets `[N]`, −1 where nothing is asked @throws ArgumentError a logit that is no number */
	add(logits: Float32Array, targets: ArrayLike<number>): void {
		const V = proteinTokens.size;
		if (logits.length !== targets.length * V)
			throw new ShapeError(`ProteinTally: found ${logits.length} logits for ${targets.length} places, expected ${V} each`);
		for (let n = 0; n < targets.length; n++) {
			const target = targets[n]!;
			if (target < 0) continue;
			let best = 0;
			for (let id = 1; id < V; id++) if (logits[n * V + id]! > logits[n * V + best]!) best = id;
			const top = logits[n * V + best]!;
			let sum = 0;
			for (let id = 0; id < V; id++) sum += Math.exp(logits[n * V + id]! - top);
			const loss = Math.log(sum) + top - logits[n * V + target]!;
			if (!Number.isFinite(loss)) throw new ArgumentError(`ProteinTally: the loss of a residue is ${loss}, expected a finite number`);
			this.#nll += loss;
			this.#residues++;
			if (best === target) this.#right++;
			this.#unigramNll += this.#unigram[target]!;
			if (target === this.#commonest) this.#unigramRight++;
		}
	}

	/** What the other has seen as well. */
	merge(other: ProteinTally): void {
		this.#nll += other.#nll;
		this.#right += other.#right;
		this.#residues += other.#residues;
		this.#unigramNll += other.#unigramNll;
		this.#unigramRight += other.#unigramRight;
	}

	/** @throws ArgumentError nothing was asked yet */
	score(): ProteinScore {
		const n = this.#residues;
		if (n === 0) throw new ArgumentError('ProteinTally: no residue was asked for, expected at least one');
		return {
			perplexity: Math.exp(this.#nll / n),
			nll: this.#nll / n,
			accuracy: this.#right / n,
			residues: n,
			unigram: { perplexity: Math.exp(this.#unigramNll / n), accuracy: this.#unigramRight / n },
		};
	}
}
