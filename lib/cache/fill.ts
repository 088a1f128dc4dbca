import { binding } from '../binding.js';
import { persist, Tensor } from '../tensor.js';
import type { LayerCache, Step } from './layer_cache.js';

/**
 * Tokens that only fill free slots, in the order of their positions: one product for all of them in place of a step each. Keys and
 * values pass through the type that the cache stores, so that a token sees what those after it will see.
 */
export function fill(cache: LayerCache, { q, k, v, o, tokens, seen }: Step): void {
	const { batch, heads, kvHeads, headDim, device, dtype, neighbours, places } = cache.shape;
	const { keys, values, scores } = cache.tensors;
	const width = kvHeads * headDim;
	const before = seen[0]!;
	const held = before + tokens;
	const made: Tensor[] = [];
	const rows = (...shape: number[]) => {
		const tensor = persist(Tensor.empty(shape, device));
		made.push(tensor);
		return tensor;
	};
	/** `[B, held, G, D]`: what is held, then what is new, in f32; the new is stored on the way. */
	const all = (fresh: Tensor, stored: Tensor): Tensor => {
		if (dtype === 'f32') {
			const place = [batch, tokens * width, tokens * width, 0, cache.slots * width, before * width] as const;
			binding.copyBlock(fresh.buffer, stored.buffer, ...place);
			return stored;
		}
		const short = persist(Tensor.empty([batch, tokens, kvHeads, headDim], device, 'f16'));
		made.push(short);
		binding.narrow(fresh.buffer, short.buffer, 0, short.size);
		const half = width / 2; // copied 32 bits at a time
		binding.copyBlock(short.buffer, stored.buffer, batch, tokens * half, tokens * half, 0, cache.slots * half, before * half);
		const held16 = persist(Tensor.empty([batch, held, kvHeads, headDim], device, 'f16'));
		made.push(held16);
		binding.copyBlock(stored.buffer, held16.buffer, batch, held * half, cache.slots * half, 0, held * half, 0);
		const wide = rows(batch, held, kvHeads, headDim);
		binding.widen(held16.buffer, wide.buffer, 0, wide.size);
		return wide;
	};
	try {
		let [allKeys, query] = [all(k, keys), q];
		const allValues = all(v, values);
		let capacity = dtype === 'f32' ? cache.slots : held;
		if (cache.tensors.ranks) {
			// Nothing has gone: a key's place is its position. (batch is 1: `fills`)
			const table = places!.table(cache.slots + 1);
			const turned = rows(held, kvHeads, headDim);
			binding.rope(allKeys.buffer, table.buffer, turned.buffer, held, kvHeads, headDim, neighbours);
			const late = places!.of(Int32Array.from({ length: tokens }, (_, i) => before + i));
			made.push(late);
			query = rows(tokens, heads, headDim);
			binding.rope(q.buffer, late.buffer, query.buffer, tokens, heads, headDim, neighbours);
			[allKeys, capacity] = [turned, held];
		}
		attend(allKeys, dtype === 'f32' && capacity === held ? compact() : allValues);

		/** Values with the capacity that turned keys have. */
		function compact(): Tensor {
			const to = rows(held, kvHeads, headDim);
			binding.copyBlock(values.buffer, to.buffer, 1, held * width, held * width, 0, held * width, 0);
			return to;
		}

		function attend(keysOf: Tensor, valuesOf: Tensor): void {
			const scored = cache.policy.score === 'attention' && cache.policy.memory === 1;
			const L = scored ? rows(batch, tokens, heads) : null;
			const sizes = [batch, tokens, held, heads, kvHeads, headDim, capacity] as const;
			binding.attend(query.buffer, keysOf.buffer, valuesOf.buffer, null, o.buffer, L?.buffer ?? null, ...sizes, true);
			if (!L) return;
			const P = cache.choosers;
			const received = rows(batch, P, capacity);
			binding.fill(received.buffer, 0, received.size);
			binding.cacheReceived(query.buffer, keysOf.buffer, L.buffer, received.buffer, ...sizes, 0, P);
			const sums = rows(batch, P, cache.slots);
			binding.fill(sums.buffer, 0, sums.size);
			binding.copyBlock(received.buffer, sums.buffer, batch * P, held, capacity, 0, cache.slots, 0);
			binding.accumulate(sums.buffer, scores.buffer, sums.size);
		}
	} finally {
		for (const tensor of made) tensor.dispose();
	}
}
