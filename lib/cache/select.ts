import { binding } from '../binding.js';
import { DeviceError } from '../errors.js';
import { persist, Tensor } from '../tensor.js';
import type { LayerCache, Step } from './layer_cache.js';
import type { Policy } from './policy.js';
import { loadRows, storeRows } from './rows.js';

/**
 * A prompt as the published code takes it: full attention over all of it and what is held, then one selection of the S entries that
 * stay, by the last token's attention (or the sum over all tokens). Needs memory for the whole prompt, in one layer at a time.
 * @see Oren et al. 2024, the code published with it; algorithms D.2
 */
export async function select(cache: LayerCache, { q, k, v, o, tokens, seen }: Step): Promise<void> {
	const { batch, heads, kvHeads, headDim, device, neighbours, places } = cache.shape;
	if (batch !== 1) throw new DeviceError(`prefill 'select' takes one sequence, found ${batch}`);
	const { keys, values, positions, scores, ranks } = cache.tensors;
	const { choosers: P, slots, policy } = cache;
	const held = Math.min(seen[0]!, slots);
	const n = held + tokens;
	const width = kvHeads * headDim;
	const made: Tensor[] = [];
	const rows = (...shape: number[]) => {
		const tensor = persist(Tensor.empty(shape, device));
		made.push(tensor);
		return tensor;
	};
	/** `[n, G, D]` in f32: what is held, then what is new. */
	const all = (fresh: Tensor, stored: Tensor): Tensor => {
		const to = rows(n, kvHeads, headDim);
		if (held > 0) {
			const before = rows(held, kvHeads, headDim);
			loadRows(cache, stored, before, held);
			binding.copyBlock(before.buffer, to.buffer, 1, held * width, held * width, 0, n * width, 0);
		}
		binding.copyBlock(fresh.buffer, to.buffer, 1, tokens * width, tokens * width, 0, n * width, held * width);
		return to;
	};
	try {
		const [allKeys, allValues, allScores] = [all(k, keys), all(v, values), rows(P, n)];
		binding.fill(allScores.buffer, 0, allScores.size);
		const [knownPositions, knownRanks] = await Promise.all([positions.read(), ranks?.read()]);
		const place = (p: number, j: number) => (j < held ? (knownPositions as unknown as Int32Array)[p * slots + j]! : seen[0]! + j - held);
		let [turnedKeys, turnedQuery] = [allKeys, q];
		if (ranks) {
			const rank = knownRanks as unknown as Int32Array;
			turnedKeys = rows(n, kvHeads, headDim);
			turnedQuery = rows(tokens, heads, headDim);
			for (let p = 0; p < P; p++) {
				const table = places!.of(Int32Array.from({ length: n }, (_, j) => (j < held ? rank[p * slots + j]! : j)));
				made.push(table);
				turn(allKeys, table, turnedKeys, p);
			}
			const table = places!.of(Int32Array.from({ length: tokens }, (_, t) => held + t));
			made.push(table);
			binding.rope(q.buffer, table.buffer, turnedQuery.buffer, tokens, heads, headDim, neighbours);
		}
		const L = rows(tokens, heads);
		const sizes = [1, tokens, n, heads, kvHeads, headDim, n] as const;
		binding.attend(turnedQuery.buffer, turnedKeys.buffer, allValues.buffer, null, o.buffer, L.buffer, ...sizes, true);
		if (policy.score === 'attention') {
			const first = policy.memory ? 0 : tokens - 1;
			if (policy.memory) {
				binding.copyBlock(scores.buffer, allScores.buffer, P, held, slots, 0, n, 0);
				if (policy.memory !== 1) binding.scale(allScores.buffer, allScores.buffer, policy.memory ** tokens, allScores.size);
			}
			binding.cacheReceived(turnedQuery.buffer, turnedKeys.buffer, L.buffer, allScores.buffer, ...sizes, first, P);
		}
		const found = await allScores.read();
		const newPositions = new Int32Array(P * slots);
		const newScores = new Float32Array(P * slots);
		const [newKeys, newValues] = [rows(slots, kvHeads, headDim), rows(slots, kvHeads, headDim)];
		for (let p = 0; p < P; p++) {
			const stay = staying(
				policy,
				n,
				slots,
				(j) => place(p, j),
				(j) => found[p * n + j]!,
			);
			for (const [slot, j] of stay.entries()) {
				newPositions[p * slots + slot] = place(p, j);
				newScores[p * slots + slot] = found[p * n + j]!;
			}
			copyRows(stay, p, allKeys, newKeys);
			copyRows(stay, p, allValues, newValues);
		}
		storeRows(cache, newKeys, keys, 0, slots, 0);
		storeRows(cache, newValues, values, 0, slots, 0);
		positions.write(newPositions);
		scores.write(newScores);
		ranks?.write(Int32Array.from({ length: P * slots }, (_, i) => i % slots));
	} finally {
		for (const tensor of made) tensor.dispose();
	}

	/** Keys of chooser p, turned; with one for all heads, all keys. */
	function turn(from: Tensor, table: Tensor, to: Tensor, p: number): void {
		if (P === 1) {
			binding.rope(from.buffer, table.buffer, to.buffer, n, kvHeads, headDim, neighbours);
			return;
		}
		const one = rows(n, 1, headDim);
		binding.copyBlock(from.buffer, one.buffer, n, headDim, width, p * headDim, headDim, 0);
		binding.rope(one.buffer, table.buffer, one.buffer, n, 1, headDim, neighbours);
		binding.copyBlock(one.buffer, to.buffer, n, headDim, headDim, 0, width, p * headDim);
	}

	/** Runs of neighbours are copied at once. */
	function copyRows(stay: readonly number[], p: number, from: Tensor, to: Tensor): void {
		const part = width / P;
		for (let slot = 0; slot < stay.length; ) {
			let end = slot + 1;
			while (end < stay.length && stay[end] === stay[end - 1]! + 1) end++;
			const offset = p * part;
			binding.copyBlock(from.buffer, to.buffer, end - slot, part, width, stay[slot]! * width + offset, width, slot * width + offset);
			slot = end;
		}
	}
}

/** Which of n entries stay, by index, in the order of their positions: all but the n − slots that go first. */
function staying(policy: Policy, n: number, slots: number, position: (j: number) => number, score: (j: number) => number): number[] {
	const newest = position(n - 1);
	const byScore = policy.score === 'attention';
	const may = Array.from({ length: n }, (_, j) => j).filter((j) => position(j) >= policy.sinks && position(j) <= newest - policy.recent);
	may.sort((a, b) => (byScore ? score(a) - score(b) : 0) || position(a) - position(b));
	const gone = new Set(may.slice(0, Math.max(0, n - slots)));
	return Array.from({ length: n }, (_, j) => j)
		.filter((j) => !gone.has(j))
		.sort((a, b) => position(a) - position(b));
}
