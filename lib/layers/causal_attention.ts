import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { attend } from '../ops/attend.js';
import { dropout } from '../ops/dropout.js';
import { reshape } from '../ops/elementwise.js';
import { Random } from '../random.js';
import { Tensor } from '../tensor.js';
import { Linear } from './linear.js';
import { Mixer, type MixerOptions } from './mixer.js';
import { Rotary } from './rotary.js';
import { State } from './state.js';

/** Tokens that a new cache has room for; it doubles when it is full. */
const FIRST_CAPACITY = 64;

export interface CausalAttentionOptions extends MixerOptions {
	/** Token t sees tokens up to t. Without, every token sees all, and there is no state. @default true */
	readonly causal?: boolean | undefined;
	/** Queries and keys are turned by their positions. @default false */
	readonly rope?: boolean | undefined;
}

/**
 * The ordinary Transformer's multi-head attention, which Aaren and Performer are compared with. Its state is a cache of every
 * key and value: 8 · dim bytes a token and sequence, so memory grows with the stream and so does the time of a step.
 *
 * @see Vaswani et al. 2017, "Attention Is All You Need", section 3.2
 */
export class CausalAttention extends Mixer {
	readonly q: Linear;
	readonly k: Linear;
	readonly v: Linear;
	readonly out: Linear;
	readonly causal: boolean;
	readonly #rotary: Rotary | undefined;

	constructor(options: CausalAttentionOptions) {
		super('attention', options);
		const { dim, heads, causal = true, rope = false } = options;
		this.causal = causal;
		const place = { ...options, random: options.random ?? new Random(options.seed ?? 0) };
		this.q = this.part('q', new Linear(dim, dim, place));
		this.k = this.part('k', new Linear(dim, dim, place));
		this.v = this.part('v', new Linear(dim, dim, place));
		this.out = this.part('out', new Linear(dim, dim, place));
		this.#rotary = rope ? new Rotary('attention', dim / heads, options.device) : undefined;
	}

	initialState({ batch = 1 }: { readonly batch?: number } = {}): State {
		this.#expectCausal();
		const shape = [batch, 0, this.heads, this.dim / this.heads];
		return new State('attention', batch, { k: Tensor.empty(shape, this.device), v: Tensor.empty(shape, this.device) });
	}

	protected mix(x: Tensor, state: State | undefined, lengths: Tensor | undefined): Tensor {
		const { B, T, C } = dims('CausalAttention.forward', { x: [x, 'B T C'] });
		const { heads: H, causal } = this;
		const shape = [B, T, H, C / H];
		if (state) this.#expect(state, B, lengths);
		let q = reshape(this.q.forward(x), shape);
		let k = reshape(this.k.forward(x), shape);
		let v = reshape(this.v.forward(x), shape);
		if (this.#rotary) [q, k] = this.#rotary.turn([q, k] as const, state?.length ?? 0);
		let filled = T;
		if (state) {
			k = append(state, 'k', k);
			v = append(state, 'v', v);
			filled = state.length += T;
		}
		const o = reshape(attend(q, k, v, { causal, filled, ...(lengths && { lengths }) }), [B, T, C]);
		return this.out.forward(this.training ? dropout(o, { rate: this.dropout, seed: this.drawSeed() }) : o);
	}

	#expectCausal(): void {
		if (!this.causal)
			throw new ArgumentError('CausalAttention: a state without `causal`, expected whole sequences (every token sees all of them)');
	}

	#expect(state: State, B: number, lengths: Tensor | undefined): void {
		this.#expectCausal();
		if (this.training)
			throw new ArgumentError('CausalAttention.forward: a state in training, expected whole sequences (no gradient flows into the cache)');
		if (lengths) throw new ArgumentError('CausalAttention.forward: lengths together with a state, expected one of them');
		state.expect('CausalAttention.forward', 'attention', B);
	}

	override dispose(): void {
		this.#rotary?.dispose();
		super.dispose();
	}
}

/** Puts `rows` `[B, T, H, D]` behind those that the cache holds, in a larger cache if they do not fit. */
function append(state: State, name: string, rows: Tensor): Tensor {
	const [B, T, H, D] = rows.shape as [number, number, number, number];
	const width = H * D;
	let cache = state.get(name);
	let capacity = cache.shape[1]!;
	if (state.length + T > capacity) {
		const grown = Math.max(FIRST_CAPACITY, 2 * capacity, state.length + T);
		const larger = Tensor.empty([B, grown, H, D], rows.device);
		if (state.length) binding.copyBlock(cache.buffer, larger.buffer, B, state.length * width, capacity * width, 0, grown * width, 0);
		state.set(name, larger);
		cache = larger;
		capacity = grown;
	}
	binding.copyBlock(rows.buffer, cache.buffer, B, T * width, T * width, 0, capacity * width, state.length * width);
	return cache;
}
