import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';
import type { FeatureMap } from './favor.js';

/**
 * What the keys and values so far leave behind, relative to e^c: the largest scale, the sum of features, and of their outer
 * products with values. Its size does not depend on how many they were.
 */
export interface FavorState {
	/** `[B, G]` */
	readonly c: Tensor;
	/** `[B, G, M]` */
	readonly z: Tensor;
	/** `[B, G, M, E]` */
	readonly S: Tensor;
}

export interface LinearAttentionOptions {
	/** Made by `favor` for the width of q and k. */
	readonly features: FeatureMap;
	/** Token t sees tokens up to t. @default false */
	readonly causal?: boolean;
	/** What came before the first token; causal only. @default nothing */
	readonly state?: FavorState | undefined;
	/** Write the final state into `state` itself instead of new tensors. Not while gradients are recorded. @default false */
	readonly inPlace?: boolean;
	/** `[B]` of i32: tokens at t ≥ lengths[b] take no part and give 0. @default all T */
	readonly lengths?: Tensor | undefined;
}

/** Tokens between two states that the forward pass keeps for the backward pass: 1 + M · (E + 1) numbers each. */
const EVERY = 512;

/**
 * Attention whose weights are products of features, φ(q)·φ(k), normalised: linear in T, and for the softmax kinds an estimate of
 * softmax attention with scores q·k / √D. A token that sees nothing gives 0.
 *
 * @param q `[B, T, H, D]`
 * @param k `[B, T, G, D]`, H a multiple of G; head h reads group ⌊h·G/H⌋
 * @param v `[B, T, G, E]`
 * @returns `o` `[B, T, H, E]` and the state after the last token
 * @see Choromanski et al. 2021, "Rethinking attention with Performers", section 2; gradient and numerics: docs/architecture.md
 */
export function linearAttention(q: Tensor, k: Tensor, v: Tensor, options: LinearAttentionOptions): { o: Tensor; state: FavorState } {
	const { features, causal = false, state, lengths, inPlace = false } = options;
	const { omega } = features;
	const { B, T, H, G, D, E, M } = dims('linearAttention', {
		q: [q, 'B T H D'],
		k: [k, 'B T G D'],
		v: [v, 'B T G E'],
		omega: [omega, 'M D'],
		c: [state?.c, 'B G'],
		z: [state?.z, 'B G M'],
		S: [state?.S, 'B G M E'],
		lengths: [lengths, 'B', 'i32'],
	});
	if (G === 0 || H % G) throw new ShapeError(`linearAttention: ${H} heads of queries, expected a multiple of the ${G} groups of keys`);
	if (state && !causal) throw new ArgumentError('linearAttention: a state without `causal`, expected both or no state');
	const { device } = q;
	const { feature, factor, epsilon } = features.native;
	const differentiate = needsGrad(q, k, v, state?.z, state?.S);
	const o = Tensor.empty([B, T, H, E], device);
	const R = differentiate ? Tensor.empty([B, T, H], device) : null;
	const marks = differentiate ? Tensor.empty([B, G, causal ? Math.ceil(T / EVERY) : 1, 1 + M * (E + 1)], device) : null;
	const out =
		inPlace && state && !differentiate
			? state
			: { c: Tensor.empty([B, G], device), z: Tensor.empty([B, G, M], device), S: Tensor.empty([B, G, M, E], device) };
	const sizes = [B, T, H, G, D, E, M, feature, factor, epsilon, EVERY, causal] as const;
	binding.linearAttention(
		q.buffer,
		k.buffer,
		v.buffer,
		omega.buffer,
		state?.c.buffer ?? null,
		state?.z.buffer ?? null,
		state?.S.buffer ?? null,
		lengths?.buffer ?? null,
		o.buffer,
		R?.buffer ?? null,
		marks?.buffer ?? null,
		out.c.buffer,
		out.z.buffer,
		out.S.buffer,
		...sizes,
	);
	record([q, k, v, state?.z, state?.S], [o, out.z, out.S], ([g, dz, dS]) => {
		const dq = Tensor.empty(q.shape, device);
		const dk = Tensor.empty(k.shape, device);
		const dv = Tensor.empty(v.shape, device);
		const dz0 = state ? Tensor.empty(state.z.shape, device) : null;
		const dS0 = state ? Tensor.empty(state.S.shape, device) : null;
		binding.linearAttentionBackward(
			q.buffer,
			k.buffer,
			v.buffer,
			omega.buffer,
			lengths?.buffer ?? null,
			o.buffer,
			R!.buffer,
			marks!.buffer,
			g?.buffer ?? null,
			dz?.buffer ?? null,
			dS?.buffer ?? null,
			dq.buffer,
			dk.buffer,
			dv.buffer,
			dz0?.buffer ?? null,
			dS0?.buffer ?? null,
			...sizes,
		);
		return [dq, dk, dv, dz0, dS0];
	});
	return { o, state: out };
}
