import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';

export interface AttendOptions {
	/** Query t of T sees the keys j ≤ S − T + t: the queries are the last T of S tokens. @default false */
	readonly causal?: boolean;
	/** `[B]` of i32: keys at j ≥ lengths[b] are not seen. @default all S */
	readonly lengths?: Tensor | undefined;
	/** S, the rows of `k` and `v` that hold something; the rest is room for later. @default all */
	readonly filled?: number;
}

/**
 * Exact softmax attention with grouped query heads, scores scaled by 1/√D. A query that sees nothing gives 0.
 * @param q `[B, T, H, D]`
 * @param k `[B, capacity, G, D]`, H a multiple of G; head h reads group ⌊h·G/H⌋
 * @param v as k
 * @returns `[B, T, H, D]`. Gradients only where every row is filled.
 * @see Vaswani et al. 2017, "Attention is all you need", section 3.2; grouped heads: Ainslie et al. 2023, "GQA"
 */
export function attend(q: Tensor, k: Tensor, v: Tensor, options: AttendOptions = {}): Tensor {
	const { causal = false, lengths } = options;
	const { B, T, H, D, G, capacity } = dims('attend', {
		q: [q, 'B T H D'],
		k: [k, 'B capacity G D'],
		v: [v, 'B capacity G D'],
		lengths: [lengths, 'B', 'i32'],
	});
	const { filled: S = capacity } = options;
	if (G === 0 || H % G) throw new ShapeError(`attend: ${H} heads of queries, expected a multiple of the ${G} groups of keys`);
	if (!Number.isInteger(S) || S < 0 || S > capacity) {
		throw new ArgumentError(`attend: filled is ${S}, expected an integer in [0, ${capacity}]`);
	}
	const { device } = q;
	const differentiate = needsGrad(q, k, v);
	if (differentiate && S !== capacity) {
		throw new ArgumentError(`attend: filled is ${S}, expected all ${capacity} rows where gradients are recorded`);
	}
	const o = Tensor.empty(q.shape, device);
	const L = differentiate ? Tensor.empty([B, T, H], device) : null;
	binding.attend(q.buffer, k.buffer, v.buffer, lengths?.buffer ?? null, o.buffer, L?.buffer ?? null, B, T, S, H, G, D, capacity, causal);
	record([q, k, v], [o], ([g]) => {
		const dq = Tensor.empty(q.shape, device);
		const dk = Tensor.empty(k.shape, device);
		const dv = Tensor.empty(v.shape, device);
		binding.attendBackward(
			q.buffer,
			k.buffer,
			v.buffer,
			lengths?.buffer ?? null,
			o.buffer,
			L!.buffer,
			g!.buffer,
			dq.buffer,
			dk.buffer,
			dv.buffer,
			B,
			T,
			S,
			H,
			G,
			D,
			causal,
		);
		return [dq, dk, dv];
	});
	return o;
}
