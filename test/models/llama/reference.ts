import { openPretrained } from '../../../lib/io/open_pretrained.js';
import type { LlamaConfig } from '../../../lib/io/pretrained.js';
import { weightNumbers } from '../../io/llama_gguf.js';
import { type Candidate, type Plan, scoreAndChoose } from './reference_policy.js';

/** A decoder of the LLaMA family in plain loops, one token of one sequence at a time, with caches that are plain arrays. */
export interface ReferenceModel {
	readonly config: LlamaConfig;
	readonly weights: ReadonlyMap<string, Float64Array>;
}

export async function openReference(path: string): Promise<ReferenceModel> {
	const files = await openPretrained(path);
	const weights = new Map<string, Float64Array>();
	for (const name of files.weights.keys()) weights.set(name, Float64Array.from(await weightNumbers(files, name)));
	return { config: files.config, weights };
}

/** What every result is rounded to: nothing (float64), or f32: then it is the naive decoder whose rounding bounds are made of. */
export type Round = (x: number) => number;
export const exact: Round = (x) => x;
export const single: Round = (x) => Math.fround(x);

/** Nearest IEEE half, ties to even. */
export function toHalf(x: number): number {
	if (x === 0 || !Number.isFinite(x)) return x;
	const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(x))));
	const step = 2 ** (exponent - 10);
	const steps = x / step;
	const below = Math.floor(steps);
	const rest = steps - below;
	const whole = rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
	return Math.abs(whole * step) > 65504 ? Math.sign(x) * Infinity : whole * step;
}

export interface ReferenceOptions {
	/** One a layer. */
	readonly plans: readonly Plan[];
	readonly positions: 'original' | 'cache';
	readonly dtype?: 'f32' | 'f16';
	readonly round?: Round;
}

/** Where the reference would have let another state go than the session did. */
export interface Tie {
	readonly layer: number;
	readonly kvHead: number;
	readonly position: number;
	/** How much higher, in relative terms, the score of the state that went is than the lowest. */
	readonly gap: number;
}

/** Positions that a session holds after the step. */
export type Kept = (layer: number, kvHead: number) => ArrayLike<number>;

export class ReferenceSequence {
	readonly model: ReferenceModel;
	/** By layer and key-value head, ascending by position. */
	readonly held: Candidate[][][];
	readonly ties: Tie[] = [];
	/** Scores by layer and key-value head as the last step had them, the new state's last. */
	scores: number[][][] = [];
	position = 0;
	readonly #options: Required<ReferenceOptions>;
	readonly #turns = new Map<number, Float64Array>();

	constructor(model: ReferenceModel, options: ReferenceOptions) {
		this.model = model;
		this.#options = { dtype: 'f32', round: exact, ...options };
		this.held = options.plans.map(() => Array.from({ length: model.config.kvHeads }, () => []));
	}

	/**
	 * One token; logits of what follows.
	 * @param kept what the session holds after this step, which is followed where it differs and noted in `ties`
	 * @throws Error the session holds what no policy could have left to it
	 */
	step(token: number, kept?: Kept): Float64Array {
		const { config, weights } = this.model;
		const { dim, vocabulary, layers } = config;
		const { round } = this.#options;
		const w = (name: string) => weights.get(`${name}.weight`)!;
		const x = w('model.embed_tokens').slice(token * dim, (token + 1) * dim);
		this.scores = [];
		for (let i = 0; i < layers; i++) {
			const layer = `model.layers.${i}`;
			add(x, this.#attend(i, this.#norm(x, w(`${layer}.input_layernorm`)), kept), round);
			const h = this.#norm(x, w(`${layer}.post_attention_layernorm`));
			const gate = this.#linear(h, `${layer}.mlp.gate_proj`);
			const up = this.#linear(h, `${layer}.mlp.up_proj`);
			for (let j = 0; j < gate.length; j++) {
				const sigmoid = round(1 / round(1 + round(Math.exp(-gate[j]!))));
				gate[j] = round(round(gate[j]! * sigmoid) * up[j]!);
			}
			add(x, this.#linear(gate, `${layer}.mlp.down_proj`), round);
		}
		this.position++;
		const logits = this.#linear(this.#norm(x, w('model.norm')), 'lm_head');
		if (logits.length !== vocabulary) throw new Error(`reference: ${logits.length} logits of ${vocabulary}`);
		return logits;
	}

	/** One step of one layer: append, attend over all entries, then let one go if there are too many (algorithms D.2). */
	#attend(layer: number, x: Float64Array, kept: Kept | undefined): Float64Array {
		const { heads, kvHeads, headDim: D, slidingWindow } = this.model.config;
		const { round, plans, positions, dtype } = this.#options;
		const stored = dtype === 'f16' ? toHalf : exact;
		const name = `model.layers.${layer}.self_attn`;
		const q = this.#linear(x, `${name}.q_proj`);
		const k = this.#linear(x, `${name}.k_proj`);
		const v = this.#linear(x, `${name}.v_proj`);
		const now = this.position;
		const reach = slidingWindow[layer] ?? Infinity;
		const o = new Float64Array(heads * D);
		const group = heads / kvHeads;
		const received: number[][] = []; // by query head
		const lists = this.held[layer]!;
		for (let g = 0; g < kvHeads; g++) {
			const head = k.slice(g * D, (g + 1) * D);
			const key = positions === 'original' ? this.#turn(head, now) : head;
			const entry = { position: now, key: key.map(stored), value: v.slice(g * D, (g + 1) * D).map(stored), score: 0 };
			const list = lists[g]!;
			list.push(entry);
			const keys = positions === 'original' ? list.map((each) => each.key) : list.map((each, place) => this.#turn(each.key, place));
			for (let h = g * group; h < (g + 1) * group; h++) {
				const query = this.#turn(q.slice(h * D, (h + 1) * D), positions === 'original' ? now : list.length - 1);
				const scores = keys.map((each, j) =>
					list[j]!.position <= now - reach ? -Infinity : dot(query, each, round) / round(Math.sqrt(D)),
				);
				const most = Math.max(...scores);
				const powers = scores.map((s) => round(Math.exp(round(round(s) - round(most)))));
				let sum = 0;
				for (const power of powers) sum = round(sum + power);
				const p = powers.map((power) => round(power / sum));
				received.push(p);
				for (let j = 0; j < p.length; j++) {
					for (let d = 0; d < D; d++) o[h * D + d] = round(o[h * D + d]! + round(p[j]! * list[j]!.value[d]!));
				}
			}
		}
		this.#evict(layer, plans[layer]!, received, kept);
		return this.#linear(o, `${name}.o_proj`);
	}

	#evict(layer: number, plan: Plan, received: readonly (readonly number[])[], kept: Kept | undefined): void {
		const lists = this.held[layer]!;
		const chosen = scoreAndChoose(plan, lists, received, this.position, this.#options.round);
		this.scores.push(lists.map((list) => list.map(({ score }) => score)));
		for (const [g, list] of lists.entries()) {
			let victim = chosen[g]!;
			if (kept) {
				const found = goneFrom(list, kept(layer, g), `layer ${layer}, key-value head ${g}, position ${this.position}`);
				if (found !== victim) {
					if (found < 0 || victim < 0)
						throw new Error(`layer ${layer}, position ${this.position}: held ${found < 0 ? 'more' : 'fewer'} than ${plan.size}`);
					const gap = plan.mayGo(list[found]!.position, this.position) ? list[found]!.score / list[victim]!.score - 1 : Infinity;
					this.ties.push({ layer, kvHead: g, position: this.position, gap: plan.attention ? gap : Infinity });
					victim = found;
				}
			}
			if (victim >= 0) list.splice(victim, 1);
		}
	}

	/** Turned by the angles of a position. */
	#turn(head: Float64Array, position: number): Float64Array {
		const { headDim: D, rope } = this.model.config;
		const { round } = this.#options;
		let turn = this.#turns.get(position);
		if (!turn) {
			turn = new Float64Array(D);
			for (let p = 0; p < D / 2; p++) {
				turn[2 * p] = round(rope.magnitude * Math.cos(position * rope.frequencies[p]!));
				turn[2 * p + 1] = round(rope.magnitude * Math.sin(position * rope.frequencies[p]!));
			}
			this.#turns.set(position, turn);
		}
		const y = new Float64Array(D);
		for (let p = 0; p < D / 2; p++) {
			const [i, j] = rope.pairs === 'neighbours' ? [2 * p, 2 * p + 1] : [p, p + D / 2];
			const [a, b, cos, sin] = [head[i]!, head[j]!, turn[2 * p]!, turn[2 * p + 1]!];
			y[i] = round(round(a * cos) - round(b * sin));
			y[j] = round(round(a * sin) + round(b * cos));
		}
		return y;
	}

	#norm(x: Float64Array, gamma: Float64Array): Float64Array {
		const { round } = this.#options;
		const scale = round(1 / round(Math.sqrt(round(round(dot(x, x, round) / x.length) + this.model.config.epsilon))));
		return x.map((each, c) => round(round(each * scale) * gamma[c]!));
	}

	#linear(x: Float64Array, name: string): Float64Array {
		const { round } = this.#options;
		const w = this.model.weights.get(`${name}.weight`)!;
		const bias = this.model.weights.get(`${name}.bias`);
		const [C, y] = [x.length, new Float64Array(w.length / x.length)];
		for (let f = 0; f < y.length; f++) {
			const sum = dot(w, x, round, f * C);
			y[f] = bias ? round(sum + bias[f]!) : sum;
		}
		return y;
	}
}

/** Which entry is no longer held; −1: all are. */
function goneFrom(list: readonly Candidate[], kept: ArrayLike<number>, where: string): number {
	let gone = -1;
	let at = 0;
	for (const [j, { position }] of list.entries()) {
		if (at < kept.length && kept[at] === position) at++;
		else if (gone < 0) gone = j;
		else throw new Error(`${where}: found ${Array.from(kept)}, expected all but one of ${list.map((each) => each.position)}`);
	}
	if (at !== kept.length) throw new Error(`${where}: found ${Array.from(kept)}, which was not there before`);
	return gone;
}

/** Σ a[from + i] · b[i], from left to right. Written out for each rounding: this is where the time goes. */
function dot(a: Float64Array, b: Float64Array, round: Round, from = 0): number {
	let sum = 0;
	if (round === exact) for (let i = 0; i < b.length; i++) sum += a[from + i]! * b[i]!;
	else for (let i = 0; i < b.length; i++) sum = Math.fround(sum + Math.fround(a[from + i]! * b[i]!));
	return sum;
}

function add(x: Float64Array, y: Float64Array, round: Round): void {
	for (let i = 0; i < x.length; i++) x[i] = round(x[i]! + y[i]!);
}

/** −ln softmax(logits)[target], in double. */
export function lossOf(logits: ArrayLike<number>, target: number): number {
	let most = -Infinity;
	for (let i = 0; i < logits.length; i++) most = Math.max(most, logits[i]!);
	let sum = 0;
	for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - most);
	return most + Math.log(sum) - logits[target]!;
}
