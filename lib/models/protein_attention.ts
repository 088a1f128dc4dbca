import { noGrad } from '../autograd.js';
import { ArgumentError } from '../errors.js';
import { CausalAttention } from '../layers/causal_attention.js';
import { PerformerAttention } from '../layers/performer_attention.js';
import { Rotary } from '../layers/rotary.js';
import { attend } from '../ops/attend.js';
import { reshape } from '../ops/elementwise.js';
import { embed } from '../ops/embed.js';
import { linearAttention } from '../ops/linear_attention.js';
import { scope, Tensor } from '../tensor.js';
import type { Performer } from './performer.js';
import type { AminoAcidMatrix } from './protein_blosum.js';
import { proteinTokens } from './protein_tokens.js';

/** How much each token looks at each: `[T, H, T]`, rows of queries that add up to 1. */
export interface AttentionMap {
	readonly layer: number;
	readonly heads: number;
	readonly weights: Float32Array;
}

/** `[1, T, H, width]`: column j is 1 at token first + j and 0 elsewhere, the same for each head. */
function oneHot(T: number, H: number, first: number, width: number, { device }: Tensor): Tensor {
	const values = new Float32Array(T * H * width);
	for (let j = 0; j < Math.min(width, T - first); j++) for (let h = 0; h < H; h++) values[((first + j) * H + h) * width + j] = 1;
	return Tensor.empty([1, T, H, width], device, 'f32', values);
}

/**
 * The attention of one sequence, layer by layer. No method of linear attention ever writes it down: it is read by running each layer once
 * more with one-hot vectors of the positions in place of values, so that outputs are the weights themselves.
 * @throws ArgumentError a model whose mixer is no attention
 * @see Choromanski et al. 2021, "Rethinking attention with Performers", appendix C.4
 */
export async function attentionOf(model: Performer, ids: Int32Array): Promise<AttentionMap[]> {
	const { dim, heads, rope, causal, norm } = model.config;
	const T = ids.length;
	using rotary = rope ? new Rotary('attentionOf', dim / heads, model.device) : undefined;
	const queued = noGrad(() =>
		scope(() => {
			let x = reshape(embed(ids, model.embedding), [1, T, dim]);
			const reads: Promise<Float32Array[]>[] = [];
			for (const block of model.stack.blocks) {
				const { mixer } = block;
				if (!(mixer instanceof PerformerAttention || mixer instanceof CausalAttention))
					throw new ArgumentError(`attentionOf: the model's mixer is ${model.config.mixer}, expected performer or attention`);
				const input = norm === 'pre' ? block.norm1.forward(x) : x;
				const shape = [1, T, heads, dim / heads];
				let q = reshape(mixer.q.forward(input), shape);
				let k = reshape(mixer.k.forward(input), shape);
				if (rotary) [q, k] = rotary.turn([q, k] as const, 0);
				// Linear attention takes values of any width, exact attention those as wide as keys.
				const width = mixer instanceof PerformerAttention ? T : dim / heads;
				const parts: Promise<Float32Array>[] = [];
				for (let first = 0; first < T; first += width) {
					const v = oneHot(T, heads, first, width, q);
					const o =
						mixer instanceof PerformerAttention
							? linearAttention(q, k, v, { features: mixer.features, causal }).o
							: attend(q, k, v, { causal });
					parts.push(o.read());
				}
				reads.push(Promise.all(parts));
				x = block.forward(x);
			}
			return { reads: Promise.all(reads) };
		}),
	);
	return (await queued.reads).map((parts, layer) => ({ layer, heads, weights: parts.length === 1 ? parts[0]! : joined(parts, T, heads) }));
}

/** `[T, H, width]` each → `[T, H, T]`. */
function joined(parts: readonly Float32Array[], T: number, H: number): Float32Array {
	const width = parts[0]!.length / (T * H);
	const weights = new Float32Array(T * H * T);
	for (const [n, part] of parts.entries()) {
		const wide = Math.min(width, T - n * width);
		for (let row = 0; row < T * H; row++) weights.set(part.subarray(row * width, row * width + wide), row * T + n * width);
	}
	return weights;
}

/** What a head does, over all sequences. */
export interface HeadFigures {
	readonly layer: number;
	readonly head: number;
	/** Mean distance between a token and what it looks at, in residues. */
	readonly distance: number;
	/** The same if it looked at all tokens alike. */
	readonly evenDistance: number;
	/**
	 * How much all tokens look at the same ones: 1 if each is looked at alike, T if all look at one. What draws vertical lines into the map.
	 */
	readonly concentration: number;
}

interface HeadSums {
	weight: number;
	distance: number;
	evenDistance: number;
	even: number;
	concentration: number;
}

/** Sums up attention over sequences: by pairs of amino acids, and by heads. */
export class AttentionTally {
	readonly #causal: boolean;
	readonly #given = new Float64Array(proteinTokens.standard ** 2);
	readonly #even = new Float64Array(proteinTokens.standard ** 2);
	readonly #heads = new Map<string, HeadSums>();
	/** Sequences added. */
	sequences = 0;

	/** @param causal whether tokens only look at those up to themselves */
	constructor(causal: boolean) {
		this.#causal = causal;
	}

	/** @param maps of all layers of one sequence, as `attentionOf` gives them @param ids the sequence */
	add(maps: readonly AttentionMap[], ids: Int32Array): void {
		const T = ids.length;
		const n = proteinTokens.standard;
		this.sequences++;
		for (const { layer, heads, weights } of maps) {
			for (let head = 0; head < heads; head++) {
				const sums = this.#sums(layer, head);
				const columns = new Float64Array(T);
				for (let i = 0; i < T; i++) {
					const seen = this.#causal ? i + 1 : T;
					const a = ids[i]!;
					for (let j = 0; j < seen; j++) {
						const weight = weights[(i * heads + head) * T + j]!;
						const far = Math.abs(i - j);
						columns[j]! += weight / T;
						sums.weight += weight;
						sums.distance += weight * far;
						sums.even += 1 / seen;
						sums.evenDistance += far / seen;
						const b = ids[j]!;
						if (a >= n || b >= n) continue;
						this.#given[a * n + b]! += weight;
						this.#even[a * n + b]! += 1 / seen;
					}
				}
				sums.concentration += T * columns.reduce((sum, column) => sum + column * column, 0);
			}
		}
	}

	#sums(layer: number, head: number): HeadSums {
		const name = `${layer} ${head}`;
		const sums = this.#heads.get(name) ?? { weight: 0, distance: 0, even: 0, evenDistance: 0, concentration: 0 };
		this.#heads.set(name, sums);
		return sums;
	}

	heads(): HeadFigures[] {
		return [...this.#heads].map(([name, { weight, distance, even, evenDistance, concentration }]) => {
			const [layer, head] = name.split(' ').map(Number) as [number, number];
			return {
				layer,
				head,
				distance: distance / weight,
				evenDistance: evenDistance / even,
				concentration: concentration / this.sequences,
			};
		});
	}

	/**
	 * How many times as much attention two amino acids give each other as was to be expected, over all sequences, layers and heads, both
	 * directions together: above 1, they look for each other. `[20, 20]`, the same both ways.
	 *
	 * `even`: expected is what they had if every token looked at all tokens alike, which depends on which amino acids are in a sequence
	 * together. `own`: expected is that, times how many times as much as evenly the one gives to all, and the other gets from all. Some amino
	 * acids are looked at by all others, which says nothing of who is like whom.
	 * @throws ArgumentError two amino acids that never met
	 */
	similarity(expected: 'own' | 'even' = 'own'): AminoAcidMatrix {
		const n = proteinTokens.standard;
		const [given, even] = [this.#given, this.#even];
		const ratio = (at: (i: number, j: number) => number) => {
			const all = { given: 0, even: 0 };
			const found = Float64Array.from({ length: n }, (_, i) => {
				let [g, e] = [0, 0];
				for (let j = 0; j < n; j++) {
					g += given[at(i, j)]!;
					e += even[at(i, j)]!;
				}
				all.given += g;
				all.even += e;
				return g / e;
			});
			return { each: found, all: all.given / all.even };
		};
		const gives = ratio((i, j) => i * n + j);
		const gets = ratio((i, j) => j * n + i);
		const want = (a: number, b: number) => even[a * n + b]! * (expected === 'own' ? (gives.each[a]! * gets.each[b]!) / gives.all : 1);
		const matrix = new Float64Array(n * n);
		for (let a = 0; a < n; a++) {
			for (let b = 0; b <= a; b++) {
				const wanted = want(a, b) + want(b, a);
				if (!(wanted > 0)) {
					const pair = `${proteinTokens.letters[a]} and ${proteinTokens.letters[b]}`;
					throw new ArgumentError(`AttentionTally: ${pair} are in none of the ${this.sequences} sequences together, expected all pairs`);
				}
				matrix[a * n + b] = matrix[b * n + a] = (given[a * n + b]! + given[b * n + a]!) / wanted;
			}
		}
		return matrix;
	}
}
