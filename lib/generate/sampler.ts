import { ArgumentError } from '../errors.js';
import { Random } from '../random.js';
import { History } from './history.js';
import { Selection } from './selection.js';

export interface SamplerOptions {
	/** Logits are divided by it: below 1 the likely become likelier. 0: always the most likely (of several the lowest). @default 1 */
	readonly temperature?: number | undefined;
	/** Only the k most likely stay (of equals the lower); 0: all. @default 0 */
	readonly topK?: number | undefined;
	/** Only the most likely stay whose probabilities together reach this, in [0, 1] (Holtzman et al. 2020). @default 1 */
	readonly topP?: number | undefined;
	/** Only those stay that are at least this many times as likely as the most likely, in [0, 1] (Nguyen et al. 2024). @default 0 */
	readonly minP?: number | undefined;
	/**
	 * Logits of tokens that were in the prompt or generated are divided by it if above 0, and multiplied by it if below
	 * (Keskar et al. 2019, section 4.1; multiplied as in transformers). @default 1
	 */
	readonly repetitionPenalty?: number | undefined;
	/** Taken off the logit of a token for each time that it was generated (as OpenAI defines it). @default 0 */
	readonly frequencyPenalty?: number | undefined;
	/** Taken off the logit of a token that was generated, once (as OpenAI defines it). @default 0 */
	readonly presencePenalty?: number | undefined;
	/** How many of the last tokens the three penalties count; Infinity: all. @default 64, as llama.cpp */
	readonly penaltyWindow?: number | undefined;
	/** Added to the logits of these tokens; −Infinity bans one. @default none */
	readonly logitBias?: ReadonlyMap<number, number> | Readonly<Record<number, number>> | undefined;
	/** The same seed and the same logits give the same tokens. An integer from 0. @default 0 */
	readonly seed?: number | undefined;
}

/**
 * Chooses tokens by their logits. The steps, in this order: repetition penalty, frequency and presence penalty, bias, top-k, top-p
 * (of what top-k left), min-p, temperature, draw. It is the order of llama.cpp: the filters judge what the model said and not what
 * the temperature made of it, so that a high temperature lets in nothing that is implausible. (transformers divides by the temperature
 * before its filters: at other temperatures than 1, its top-p and min-p keep other sets.) The most likely token always stays.
 *
 * Tokens of logit +∞ share all of the probability evenly; those of −∞ have none.
 */
export class Sampler {
	readonly vocabulary: number;
	readonly #options: Readonly<Record<Exclude<keyof SamplerOptions, 'logitBias' | 'seed'>, number>>;
	readonly #bias: ReadonlyMap<number, number>;
	readonly #random: Random;
	readonly #history: History;
	readonly #selection = new Selection();
	/** [V]: scores, and then in their place weights. */
	readonly #scores: Float64Array;

	/**
	 * @param vocabulary V
	 * @param scratch [V]: memory to work in, which samplers may share. @default its own
	 * @throws ArgumentError
	 */
	constructor(vocabulary: number, options: SamplerOptions = {}, scratch?: Float64Array) {
		if (!Number.isInteger(vocabulary) || vocabulary < 1 || vocabulary > 2 ** 31) {
			throw new ArgumentError(`Sampler: vocabulary is ${vocabulary}, expected an integer in [1, 2³¹]`);
		}
		this.vocabulary = vocabulary;
		const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
		const { frequencyPenalty = 0, presencePenalty = 0, penaltyWindow = 64, logitBias, seed = 0 } = options;
		check('temperature', temperature, temperature >= 0 && temperature < Infinity, 'a finite number from 0');
		check('topK', topK, Number.isInteger(topK) && topK >= 0, 'an integer from 0');
		check('topP', topP, topP >= 0 && topP <= 1, 'a number in [0, 1]');
		check('minP', minP, minP >= 0 && minP <= 1, 'a number in [0, 1]');
		check('repetitionPenalty', repetitionPenalty, repetitionPenalty > 0 && repetitionPenalty < Infinity, 'a finite number above 0');
		check('frequencyPenalty', frequencyPenalty, Number.isFinite(frequencyPenalty), 'a finite number');
		check('presencePenalty', presencePenalty, Number.isFinite(presencePenalty), 'a finite number');
		const window = penaltyWindow === Infinity || (Number.isSafeInteger(penaltyWindow) && penaltyWindow >= 0);
		check('penaltyWindow', penaltyWindow, window, 'an integer from 0 or Infinity');
		check('seed', seed, Number.isSafeInteger(seed) && seed >= 0, 'an integer in [0, 2⁵³)');
		this.#options = { temperature, topK, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty, penaltyWindow };
		this.#bias = biases(logitBias, vocabulary);
		this.#random = new Random(seed);
		// What no penalty looks at need not be counted.
		this.#history = new History(repetitionPenalty === 1 && frequencyPenalty === 0 && presencePenalty === 0 ? 0 : penaltyWindow);
		this.#scores = scratch ?? new Float64Array(vocabulary);
		check('scratch.length', this.#scores.length, this.#scores.length === vocabulary, `${vocabulary} as the vocabulary`);
	}

	/** Tokens of the prompt: the repetition penalty counts them. */
	prompt(tokens: ArrayLike<number>): void {
		for (let i = 0; i < tokens.length; i++) this.#history.add(tokens[i]!, false);
	}

	/**
	 * Choose the next token and remember it for the penalties. One random number a token, none at temperature 0.
	 * @param logits [V], read only
	 * @throws ArgumentError if a logit is NaN, or none is above −∞
	 */
	sample(logits: ArrayLike<number>): number {
		const { best, tokens, n, total } = this.#weigh(logits);
		const token = this.#options.temperature === 0 ? best : this.#draw(best, tokens, n, total);
		this.#history.add(token, true);
		return token;
	}

	/** The distribution [V] that `sample` would draw from now. Nothing is drawn or remembered. */
	distribution(logits: ArrayLike<number>): Float64Array {
		const { best, tokens, n, total } = this.#weigh(logits);
		const result = new Float64Array(this.vocabulary);
		if (this.#options.temperature === 0) result[best] = 1;
		for (let i = 0; i < n; i++) {
			const token = tokens ? tokens[i]! : i;
			result[token] = this.#scores[token]! / total;
		}
		return result;
	}

	#draw(best: number, tokens: Int32Array | null, n: number, total: number): number {
		const weights = this.#scores;
		let rest = this.#random.uniform() * total;
		let chosen = best; // for the rounding of `rest`, which may leave a little over when all are passed
		for (let i = 0; i < n; i++) {
			const token = tokens ? tokens[i]! : i;
			const weight = weights[token]!;
			if (weight === 0) continue; // or `chosen` could be one that is banned
			chosen = token;
			if ((rest -= weight) < 0) break;
		}
		return chosen;
	}

	/**
	 * Turn logits into weights, in place of the scores: of the first n of `tokens`, or of all tokens where that is null. The weight of
	 * the most likely is 1. At temperature 0 there is only `best`.
	 */
	#weigh(logits: ArrayLike<number>): { best: number; tokens: Int32Array | null; n: number; total: number } {
		const { temperature, minP } = this.#options;
		const scores = this.#scores;
		const V = this.vocabulary;
		const best = this.#score(logits);
		if (temperature === 0) return { best, tokens: null, n: 0, total: 0 };
		const most = scores[best]!;
		// A token stays if e^(score − most) is at least minP: compared as such, because a logarithm would round the bound.
		const weight = (score: number) => (score === most ? 1 : Math.exp((score - most) / temperature));
		const stays = (score: number) => minP === 0 || score === most || Math.exp(score - most) >= minP;
		const n = this.#filter(most);
		let total = 0;
		if (n === null) {
			for (let i = 0; i < V; i++) total += scores[i] = stays(scores[i]!) ? weight(scores[i]!) : 0;
			return { best, tokens: null, n: V, total };
		}
		const { tokens } = this.#selection;
		let kept = 0;
		for (; kept < n && stays(scores[tokens[kept]!]!); kept++) total += scores[tokens[kept]!] = weight(scores[tokens[kept]!]!);
		return { best, tokens, n: kept, total };
	}

	/** Logits with penalties and biases, in `#scores`. Returns the token of the highest, of several the lowest. */
	#score(logits: ArrayLike<number>): number {
		const V = this.vocabulary;
		if (logits.length !== V) throw new ArgumentError(`Sampler.sample: found ${logits.length} logits, expected ${V}`);
		const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#options;
		const scores = this.#scores;
		scores.set(logits);
		for (const [token, { all, generated }] of this.#history.counts) {
			let score = scores[token];
			if (score === undefined) continue; // a token of the prompt that is never generated
			if (all > 0) score = score > 0 ? score / repetitionPenalty : score * repetitionPenalty;
			if (generated > 0) score -= generated * frequencyPenalty + presencePenalty;
			scores[token] = score;
		}
		for (const [token, bias] of this.#bias) scores[token] = bias === Number.NEGATIVE_INFINITY ? bias : scores[token]! + bias;
		let best = 0;
		let most = Number.NEGATIVE_INFINITY;
		for (let i = 0; i < V; i++) {
			const score = scores[i]!;
			if (score > most) {
				most = score;
				best = i;
			} else if (Number.isNaN(score)) {
				throw new ArgumentError(`Sampler.sample: the logit of token ${i} is NaN, expected a number`);
			}
		}
		if (most === Number.NEGATIVE_INFINITY) {
			const banned = this.#bias.size > 0 ? ' (the bias may ban all that the model allows)' : '';
			throw new ArgumentError(`Sampler.sample: the logits of all ${V} tokens are -Infinity, expected one above${banned}`);
		}
		return best;
	}

	/** Top-k, then top-p: how many of `#selection.tokens` stay, in falling order; null if these two keep all. */
	#filter(most: number): number | null {
		const { topK, topP } = this.#options;
		const scores = this.#scores;
		const V = this.vocabulary;
		const cut = topK > 0 && topK < V;
		if (!cut && topP === 1) return null;
		const weight = (score: number) => (score === most ? 1 : Math.exp(score - most));
		if (cut) {
			const n = this.#selection.highest(scores, topK);
			const { tokens } = this.#selection;
			let total = 0;
			for (let i = 0; i < n; i++) total += weight(scores[tokens[i]!]!);
			return topP === 1 ? n : this.#reach(topP * total, n, weight).n;
		}
		let total = 0;
		for (let i = 0; i < V; i++) total += weight(scores[i]!);
		// Seldom are more than a few needed: take more only while those in hand do not reach it.
		for (let k = 64; ; k *= 8) {
			const found = this.#selection.highest(scores, Math.min(k, V));
			const { n, reached } = this.#reach(topP * total, found, weight);
			if (reached || found === V) return n;
		}
	}

	/** How many of the first `found` of `#selection.tokens` are needed for their weights to sum up to `goal`: at least one. */
	#reach(goal: number, found: number, weight: (score: number) => number): { n: number; reached: boolean } {
		const { tokens } = this.#selection;
		let sum = 0;
		for (let i = 0; i < found; i++) {
			sum += weight(this.#scores[tokens[i]!]!);
			if (sum >= goal) return { n: i + 1, reached: true };
		}
		return { n: found, reached: false };
	}
}

/**
 * The logarithm of the probability that the model gives a token: of its logits as they are, without penalties, filters or temperature.
 * @param logits [V]
 */
export function logprob(logits: ArrayLike<number>, token: number): number {
	let most = Number.NEGATIVE_INFINITY;
	for (let i = 0; i < logits.length; i++) most = Math.max(most, logits[i]!);
	let total = 0;
	for (let i = 0; i < logits.length; i++) total += logits[i] === most ? 1 : Math.exp(logits[i]! - most);
	return (logits[token] === most ? 0 : logits[token]! - most) - Math.log(total);
}

function check(name: string, value: number, holds: boolean, expected: string): void {
	if (typeof value !== 'number' || !holds) throw new ArgumentError(`Sampler: ${name} is ${value}, expected ${expected}`);
}

function biases(given: SamplerOptions['logitBias'], vocabulary: number): ReadonlyMap<number, number> {
	const found = new Map<number, number>();
	const entries = given instanceof Map ? given : Object.entries(given ?? {});
	for (const [key, bias] of entries as Iterable<[unknown, unknown]>) {
		const token = typeof key === 'string' && /^\d+$/.test(key) ? Number(key) : key;
		if (!Number.isInteger(token) || (token as number) < 0 || (token as number) >= vocabulary) {
			throw new ArgumentError(`Sampler: logitBias is for token ${String(key)}, expected an integer in [0, ${vocabulary})`);
		}
		if (typeof bias !== 'number' || !(bias < Infinity)) {
			throw new ArgumentError(`Sampler: logitBias of token ${token} is ${String(bias)}, expected a finite number or -Infinity`);
		}
		found.set(token as number, bias);
	}
	return found;
}
