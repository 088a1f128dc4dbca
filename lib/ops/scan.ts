import { needsGrad, record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { zeros } from './zeros.js';

/** (m, u, w) of ⊕ for every head: the largest score, the sum of weights and the weighted sum of values, relative to e^m. */
export interface ScanState {
	/** `[B, H]` */
	readonly m: Tensor;
	/** `[B, H]` */
	readonly u: Tensor;
	/** `[B, H, D]` */
	readonly w: Tensor;
}

export interface ScanOptions {
	/** What came before the first token. @default nothing: (−∞, 0, 0) */
	readonly state?: ScanState | undefined;
	/** Write the final state into `state` itself instead of new tensors. Not while gradients are recorded. @default false */
	readonly inPlace?: boolean;
	/** `[B]` of i32: tokens at t ≥ lengths[b] take no part and give 0. @default all T */
	readonly lengths?: Tensor | undefined;
	/** Suffixes instead of prefixes. @default false */
	readonly reverse?: boolean;
	/** Leave `o` out (many to one: only the final state is wanted). @default true */
	readonly outputs?: boolean;
}

/**
 * Softmax attention of one fixed query over every prefix of a sequence, as a scan under ⊕:
 * `o[t] = Σ e^(s[i]) v[i] / Σ e^(s[i])` over i ≤ t. A token with s = −∞ takes no part; a prefix without tokens gives 0.
 *
 * @param s `[B, T, H]` scores
 * @param v `[B, T, G, D]` values, H a multiple of G; head h reads group ⌊h·G/H⌋
 * @returns `o` `[B, T, H, D]` (null with `outputs: false`) and the state after the last token
 * @see Feng et al. 2024, "Attention as an RNN", sections 3.1 and 3.2; gradient: docs/architecture.md
 */
export function scan(s: Tensor, v: Tensor, options: ScanOptions & { readonly outputs: false }): { o: null; state: ScanState };
export function scan(s: Tensor, v: Tensor, options?: ScanOptions): { o: Tensor; state: ScanState };
export function scan(s: Tensor, v: Tensor, options: ScanOptions = {}): { o: Tensor | null; state: ScanState } {
	const { state, lengths, reverse = false, inPlace = false } = options;
	const { B, T, H, G, D } = dims('scan', {
		s: [s, 'B T H'],
		v: [v, 'B T G D'],
		m: [state?.m, 'B H'],
		u: [state?.u, 'B H'],
		w: [state?.w, 'B H D'],
		lengths: [lengths, 'B', 'i32'],
	});
	if (H % G) throw new ShapeError(`scan: ${H} heads of scores, expected a multiple of the ${G} groups of values`);
	const { device } = s;
	const differentiate = needsGrad(s, v, state?.u, state?.w);
	const o = options.outputs === false && !differentiate ? null : Tensor.empty([B, T, H, D], device);
	const L = differentiate ? Tensor.empty([B, T, H], device) : null;
	const out =
		inPlace && state && !differentiate
			? state
			: { m: Tensor.empty([B, H], device), u: Tensor.empty([B, H], device), w: Tensor.empty([B, H, D], device) };
	const m0 = state?.m.buffer ?? null;
	const u0 = state?.u.buffer ?? null;
	const w0 = state?.w.buffer ?? null;
	const lengthsBuffer = lengths?.buffer ?? null;
	binding.scan(
		s.buffer,
		v.buffer,
		m0,
		u0,
		w0,
		lengthsBuffer,
		o?.buffer ?? null,
		L?.buffer ?? null,
		out.m.buffer,
		out.u.buffer,
		out.w.buffer,
		B,
		T,
		H,
		G,
		D,
		reverse,
	);

	if (differentiate) {
		record([s, v, state?.u, state?.w], [o!, out.u, out.w], ([g, duIn, dwIn]) => {
			const final = duIn || dwIn;
			const du = final ? (duIn ?? zeros(out.u.shape, device)) : null;
			const dw = final ? (dwIn ?? zeros(out.w.shape, device)) : null;
			const ds = Tensor.empty(s.shape, device);
			const dv = Tensor.empty([B, T, H, D], device);
			const du0 = state ? Tensor.empty([B, H], device) : null;
			const dw0 = state ? Tensor.empty([B, H, D], device) : null;
			binding.scanBackward(
				s.buffer,
				v.buffer,
				m0 && state!.m.buffer,
				u0 && state!.u.buffer,
				w0 && state!.w.buffer,
				lengths?.buffer ?? null,
				o!.buffer,
				L!.buffer,
				g?.buffer ?? null,
				final ? out.m.buffer : null,
				du?.buffer ?? null,
				dw?.buffer ?? null,
				ds.buffer,
				dv.buffer,
				du0?.buffer ?? null,
				dw0?.buffer ?? null,
				B,
				T,
				H,
				G,
				D,
				reverse,
			);
			if (final && !duIn) du!.dispose();
			if (final && !dwIn) dw!.dispose();
			if (G === H) return [ds, dv, du0, dw0];
			const shared = Tensor.empty(v.shape, device);
			binding.sum(dv.buffer, shared.buffer, B * T * G, H / G, D);
			dv.dispose();
			return [ds, shared, du0, dw0];
		});
	}
	return { o, state: out };
}
