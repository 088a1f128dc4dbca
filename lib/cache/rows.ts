import { binding } from '../binding.js';
import { persist, Tensor } from '../tensor.js';
import type { LayerCache } from './layer_cache.js';

/**
 * Keys or values between a cache, `[B, G, S, D]` as it stores them, and operations that take `[B, T, G, D]` in f32. Copies are made 32
 * bits at a time; D is even, so two halves always go together.
 */
interface Sides {
	readonly batch: number;
	readonly kvHeads: number;
	/** Numbers of 32 bits a row of the cache. */
	readonly width: number;
}

function sidesOf({ shape: { batch, kvHeads, headDim, dtype } }: LayerCache): Sides {
	return { batch, kvHeads, width: dtype === 'f16' ? headDim / 2 : headDim };
}

/** The first `count` slots → `[B, count, G, D]`. */
export function loadRows(cache: LayerCache, stored: Tensor, to: Tensor, count: number): void {
	const { batch, kvHeads, width } = sidesOf(cache);
	const { device, dtype } = cache.shape;
	const rows = dtype === 'f16' ? persist(Tensor.empty(to.shape, device, 'f16')) : to;
	for (let b = 0; b < batch; b++) {
		for (let g = 0; g < kvHeads; g++) {
			const from = (b * kvHeads + g) * cache.slots * width;
			const into = (b * count * kvHeads + g) * width;
			binding.copyBlock(stored.buffer, rows.buffer, count, width, width, from, kvHeads * width, into);
		}
	}
	if (rows === to) return;
	binding.widen(rows.buffer, to.buffer, 0, to.size);
	rows.dispose();
}

/** Rows `first` to `first + count` of `[B, T, G, D]` → slots from `slot` on. */
export function storeRows(cache: LayerCache, from: Tensor, stored: Tensor, first: number, count: number, slot: number): void {
	const { batch, kvHeads, width } = sidesOf(cache);
	const { device, dtype, headDim } = cache.shape;
	const rows = dtype === 'f16' ? persist(Tensor.empty([from.size], device, 'f16')) : from;
	if (rows !== from) binding.narrow(from.buffer, rows.buffer, 0, from.size);
	const T = from.size / (batch * kvHeads * headDim);
	for (let b = 0; b < batch; b++) {
		for (let g = 0; g < kvHeads; g++) {
			const at = ((b * T + first) * kvHeads + g) * width;
			const into = ((b * kvHeads + g) * cache.slots + slot) * width;
			binding.copyBlock(rows.buffer, stored.buffer, count, width, kvHeads * width, at, width, into);
		}
	}
	if (rows !== from) rows.dispose();
}
