import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { Tensor } from '../tensor.js';
import type { ScanState } from './scan.js';

/**
 * a ⊕ b: the state of two disjoint sets of tokens together, from the states of each.
 *
 * Not on the tape: states are merged when streams are, not in training.
 * @see Feng et al. 2024, "Attention as an RNN", section 3.2
 */
export function join(a: ScanState, b: ScanState): ScanState {
	const { B, H, D } = dims('join', {
		'a.m': [a.m, 'B H'],
		'a.u': [a.u, 'B H'],
		'a.w': [a.w, 'B H D'],
		'b.m': [b.m, 'B H'],
		'b.u': [b.u, 'B H'],
		'b.w': [b.w, 'B H D'],
	});
	const m = Tensor.empty([B, H], a.m.device);
	const u = Tensor.empty([B, H], a.m.device);
	const w = Tensor.empty([B, H, D], a.m.device);
	binding.join(a.m.buffer, a.u.buffer, a.w.buffer, b.m.buffer, b.u.buffer, b.w.buffer, m.buffer, u.buffer, w.buffer, B * H, D);
	return { m, u, w };
}
