import { binding } from '../binding.js';
import { persist, Tensor } from '../tensor.js';
import type { LayerCache, Step } from './layer_cache.js';
import { loadRows, storeRows } from './rows.js';

/**
 * Tokens that only fill free slots, in the order of their positions: one product for all of them in place of a step each. Keys and
 * values pass through the type that the cache stores, so that a token sees what those after it will see.
 */
export function fill(cache: LayerCache, { q, k, v, o, tokens, seen }: Step): void {
	const { batch, heads, kvHeads, headDim, device, neighbours, places } = cache.shape;
	const { keys, values, scores } = cache.tensors;
	const before = seen[0]!;
	const held = before + tokens;
	const made: Tensor[] = [];
	const rows = (...shape: number[]) => {
		const tensor = persist(Tensor.empty(shape, device));
		made.push(tensor);
		return tensor;
	};
	/** `[B, held, G, D]`, in f32: what is held, then what is new; the new is stored on the way. */
	const all = (fresh: Tensor, stored: Tensor): Tensor => {
		const to = rows(batch, held, kvHeads, headDim);
		storeRows(cache, fresh, stored, 0, tokens, before);
		loadRows(cache, stored, to, held);
		return to;
	};
	try {
		const allValues = all(v, values);
		let [allKeys, query] = [all(k, keys), q];
		if (cache.tensors.ranks) {
			// Nothing has gone: a key's place is its position. (batch is 1: `fills`)
			const turned = rows(held, kvHeads, headDim);
			binding.rope(allKeys.buffer, places!.table(cache.slots + 1).buffer, turned.buffer, held, kvHeads, headDim, neighbours);
			const late = places!.of(Int32Array.from({ length: tokens }, (_, i) => before + i));
			made.push(late);
			query = rows(tokens, heads, headDim);
			binding.rope(q.buffer, late.buffer, query.buffer, tokens, heads, headDim, neighbours);
			allKeys = turned;
		}
		const scored = cache.policy.score === 'attention' && cache.policy.memory === 1;
		const L = scored ? rows(batch, tokens, heads) : null;
		const sizes = [batch, tokens, held, heads, kvHeads, headDim, held] as const;
		binding.attend(query.buffer, allKeys.buffer, allValues.buffer, null, o.buffer, L?.buffer ?? null, ...sizes, true);
		if (!L) return;
		const P = cache.choosers;
		const received = rows(batch, P, held);
		binding.fill(received.buffer, 0, received.size);
		binding.cacheReceived(query.buffer, allKeys.buffer, L.buffer, received.buffer, ...sizes, 0, P);
		const sums = rows(batch, P, cache.slots);
		binding.fill(sums.buffer, 0, sums.size);
		binding.copyBlock(received.buffer, sums.buffer, batch * P, held, held, 0, cache.slots, 0);
		binding.accumulate(sums.buffer, scores.buffer, sums.size);
	} finally {
		for (const tensor of made) tensor.dispose();
	}
}
