import { isRecording, noGrad } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { dropout } from '../ops/dropout.js';
import { mul, reshape, scale, sum } from '../ops/elementwise.js';
import { foldQuery } from '../ops/fold_query.js';
import { linear } from '../ops/linear.js';
import { scan } from '../ops/scan.js';
import { Random } from '../random.js';
import { scope, Tensor } from '../tensor.js';
import { Linear } from './linear.js';
import { Mixer, type MixerOptions } from './mixer.js';
import { Scratch } from './scratch.js';
import { State } from './state.js';

export interface AarenOptions extends MixerOptions {
	/**
	 * Fold the key projection into one vector a head, s = x·a (the same numbers up to rounding, C² products a token fewer).
	 * @default true
	 */
	readonly fold?: boolean;
}

/**
 * Attention as a recurrent network: the query is a learned constant, so attention over every prefix is one scan under ⊕.
 * Trained over all of time at once, run one token at a time with a state of heads · (dim/heads + 2) numbers.
 *
 * The same parameters as multi-head attention of this width (query, key, value and output projections with biases) and
 * one token `query` of `dim` numbers.
 * @see Feng et al. 2024, "Attention as an RNN", section 3.3
 */
export class Aaren extends Mixer {
	readonly fold: boolean;
	/** `[C]` the learned token that the queries are made of */
	readonly query: Tensor;
	readonly q: Linear;
	readonly k: Linear;
	readonly v: Linear;
	readonly out: Linear;
	#folded: { a: Tensor; version: number } | undefined;
	readonly #scratch: Scratch<'s' | 'v' | 'o'>;

	constructor(options: AarenOptions) {
		super('aaren', options);
		this.fold = options.fold ?? true;
		const { dim, heads } = options;
		this.#scratch = new Scratch({ s: heads, v: dim, o: dim });
		const random = options.random ?? new Random(options.seed ?? 0);
		const place = { ...options, random };
		const initial = Float32Array.from({ length: dim }, () => random.normal());
		this.query = this.parameter('query', Tensor.empty([dim], options.device, 'f32', initial));
		this.q = this.part('q', new Linear(dim, dim, place));
		this.k = this.part('k', new Linear(dim, dim, place));
		this.v = this.part('v', new Linear(dim, dim, place));
		this.out = this.part('out', new Linear(dim, dim, place));
	}

	/** State bytes do not depend on how many tokens were seen: 4 · batch · heads · (dim/heads + 2). */
	initialState({ batch = 1 }: { readonly batch?: number } = {}): State {
		const { heads, dim, device } = this;
		const m = Tensor.empty([batch, heads], device, 'f32', new Float32Array(batch * heads).fill(-Infinity));
		const u = Tensor.empty([batch, heads], device, 'f32', new Float32Array(batch * heads));
		const w = Tensor.empty([batch, heads, dim / heads], device, 'f32', new Float32Array(batch * dim));
		return new State('aaren', batch, { m, u, w });
	}

	protected mix(x: Tensor, state: State | undefined, lengths: Tensor | undefined): Tensor {
		const { B, T, C } = dims('Aaren.forward', { x: [x, 'B T C'] });
		const { heads: H } = this;
		const s = this.scores(x);
		const v = reshape(this.v.forward(x), [B, T, H, C / H]);
		if (!state) return this.#project(scan(s, v, { lengths }).o, B, T, C);

		state.expect('Aaren.forward', 'aaren', B);
		const before = { m: state.get('m'), u: state.get('u'), w: state.get('w') };
		const { o, state: after } = scan(s, v, { state: before, lengths, inPlace: true });
		if (after !== before) for (const name of ['m', 'u', 'w'] as const) state.set(name, after[name]);
		state.length += T;
		return this.#project(o, B, T, C);
	}

	override get steps(): boolean {
		return this.fold;
	}

	override step(x: Tensor, state: State, y: Tensor): void {
		const { heads: H, dim: C } = this;
		const B = x.shape[0]!;
		state.expect('Aaren.forward', 'aaren', B);
		const { s, v, o } = this.#scratch.of(B, x.device);
		const m = state.get('m').buffer;
		const u = state.get('u').buffer;
		const w = state.get('w').buffer;
		binding.linear(x.buffer, this.#foldedQuery().buffer, null, s.buffer, B, C, H);
		this.v.into(x, v, B);
		binding.scan(s.buffer, v.buffer, m, u, w, null, o.buffer, null, m, u, w, B, 1, H, H, C / H, false);
		this.out.into(o, y, B);
		state.length++;
	}

	#project(o: Tensor, B: number, T: number, C: number): Tensor {
		const joined = reshape(o, [B, T, C]);
		return this.out.forward(this.training ? dropout(joined, { rate: this.dropout, seed: this.drawSeed() }) : joined);
	}

	/** `[B, T, H]` the score of every token: query · key / √D, folded or not. */
	scores(x: Tensor): Tensor {
		if (this.fold) return linear(x, this.#foldedQuery());
		const { B, T, C } = dims('Aaren.scores', { x: [x, 'B T C'] });
		const { heads: H } = this;
		const query = reshape(this.q.forward(reshape(this.query, [1, C])), [H, C / H]);
		const keys = reshape(this.k.forward(x), [B, T, H, C / H]);
		return scale(sum(mul(keys, query), -1), 1 / Math.sqrt(C / H));
	}

	/**
	 * `[H, C]` a_h = W_kᵀ(W_q q + b_q) / √D. The key bias shifts all scores of a head alike and cancels in the softmax.
	 * Kept between calls while nothing is recorded and no weight has changed: a streaming step need not do it again.
	 */
	#foldedQuery(): Tensor {
		const fold = () => foldQuery(reshape(this.q.forward(reshape(this.query, [1, this.dim])), [this.dim]), this.k.weight, this.heads);
		if (isRecording()) return fold();
		const version = this.query.version + this.q.weight.version + this.q.bias!.version + this.k.weight.version;
		if (this.#folded?.version !== version || this.#folded.a.disposed) {
			this.#folded?.a.dispose();
			const a = noGrad(() => scope(fold));
			a.persistent = true;
			this.#folded = { a, version };
		}
		return this.#folded.a;
	}

	override dispose(): void {
		this.#folded?.a.dispose();
		this.#scratch.dispose();
		super.dispose();
	}
}
