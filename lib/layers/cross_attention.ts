import { noGrad } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { concat, reshape, scale, slice } from '../ops/elementwise.js';
import { linear } from '../ops/linear.js';
import { matmul } from '../ops/matmul.js';
import { scan } from '../ops/scan.js';
import { Random } from '../random.js';
import { scope, Tensor } from '../tensor.js';
import { Linear } from './linear.js';
import { type ForwardOptions, type MixerOptions, size } from './mixer.js';
import { Module } from './module.js';
import { State } from './state.js';

export interface CrossAttentionOptions extends MixerOptions {
	/** Learned queries N: how many vectors the whole stream is summed up in. */
	readonly latents: number;
}

/**
 * Latents attend to a stream (Perceiver style; Jaegle et al. 2021): N learned queries, each with its own (m, u, w) of ⊕ over
 * all tokens, updated in O(1) a token. Many to one: the result is what the latents know after the last token.
 *
 * @see Feng et al. 2024, "Attention as an RNN", section 3.1 (many-to-one RNN)
 */
export class CrossAttention extends Module {
	readonly dim: number;
	readonly heads: number;
	/** `[N, C]` */
	readonly latents: Tensor;
	readonly q: Linear;
	readonly k: Linear;
	readonly v: Linear;
	readonly out: Linear;

	constructor(options: CrossAttentionOptions) {
		super();
		const dim = (this.dim = size('CrossAttention', 'dim', options.dim));
		this.heads = size('CrossAttention', 'heads', options.heads);
		if (dim % this.heads) size('CrossAttention', 'dim / heads', dim / this.heads);
		const n = size('CrossAttention', 'latents', options.latents);
		const random = options.random ?? new Random(options.seed ?? 0);
		const place = { ...options, random };
		const initial = Float32Array.from({ length: n * dim }, () => random.normal());
		this.latents = this.parameter('latents', Tensor.empty([n, dim], options.device, 'f32', initial));
		this.q = this.part('q', new Linear(dim, dim, place));
		this.k = this.part('k', new Linear(dim, dim, place));
		this.v = this.part('v', new Linear(dim, dim, place));
		this.out = this.part('out', new Linear(dim, dim, place));
	}

	/** 4 · batch · N · heads · (dim/heads + 2) bytes, however long the stream. */
	initialState({ batch = 1 }: { readonly batch?: number } = {}): State {
		const n = this.heads * this.latents.shape[0]!;
		const D = this.dim / this.heads;
		const m = Tensor.empty([batch, n], this.device, 'f32', new Float32Array(batch * n).fill(-Infinity));
		const u = Tensor.empty([batch, n], this.device, 'f32', new Float32Array(batch * n));
		const w = Tensor.empty([batch, n, D], this.device, 'f32', new Float32Array(batch * n * D));
		return new State('cross', batch, { m, u, w });
	}

	/**
	 * What the latents know after tokens x (and those that `state` has seen, which is moved on).
	 * @param x `[B, T, C]`
	 * @returns `[B, N, C]`
	 */
	forward(x: Tensor, state?: State, options: ForwardOptions = {}): Tensor {
		this.check();
		if (!state || this.training) return this.#run(x, state, options);
		return noGrad(() => scope(() => this.#run(x, state, options)));
	}

	#run(x: Tensor, state: State | undefined, { lengths }: ForwardOptions): Tensor {
		const { B, T, C } = dims('CrossAttention.forward', { x: [x, 'B T C'] });
		const { heads: G } = this;
		const D = C / G;
		const N = this.latents.shape[0]!;
		state?.expect('CrossAttention.forward', 'cross', B);
		const before = state && { m: state.get('m'), u: state.get('u'), w: state.get('w') };
		const v = reshape(this.v.forward(x), [B, T, G, D]);
		const s = scale(linear(x, this.#foldedQueries()), 1 / Math.sqrt(D));
		const { state: after } = scan(s, v, { state: before, lengths, inPlace: true, outputs: false });
		if (state) {
			for (const name of ['m', 'u', 'w'] as const) state.set(name, after[name]);
			state.length += T;
		}
		// A token that takes no part leaves the state alone and reads it: o = w / u.
		const nobody = Tensor.empty([B, 1, G * N], x.device);
		binding.fill(nobody.buffer, -Infinity, nobody.size);
		const o = scan(nobody, Tensor.empty([B, 1, G, D], x.device), { state: after }).o;
		const byHead = reshape(o, [B, G, N, D]); // heads outside, latents inside: here they change places
		const joined = concat(
			Array.from({ length: G }, (_, g) => reshape(slice(byHead, 1, g, g + 1), [B, N, D])),
			-1,
		);
		return this.out.forward(joined);
	}

	/** `[G·N, C]` the key projection folded into one vector for every head and latent, as in `Aaren`. */
	#foldedQueries(): Tensor {
		const D = this.dim / this.heads;
		const queries = this.q.forward(this.latents);
		return concat(
			Array.from({ length: this.heads }, (_, g) =>
				matmul(slice(queries, 1, g * D, (g + 1) * D), slice(this.k.weight, 0, g * D, (g + 1) * D)),
			),
			0,
		);
	}
}
