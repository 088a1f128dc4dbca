import { binding } from '../binding.js';
import { DeviceError } from '../errors.js';
import { Tensor } from '../tensor.js';
import type { LayerCache, Step } from './layer_cache.js';
import type { Entries } from './policy.js';

/**
 * One step of a cache whose policy is a function: attention runs natively, what every entry received is read back, the function
 * scores the entries, and the slot of the lowest is overwritten.
 */
export async function evictBySelf(cache: LayerCache, step: Step, score: (entries: Entries) => void): Promise<void> {
	if (step.tokens !== 1) throw new DeviceError(`a policy of one’s own takes one token at a time, found ${step.tokens}`);
	const { batch, kvHeads, headDim, device, dtype } = cache.shape;
	const { layer, slots, choosers: P } = cache;
	const { sinks, recent } = cache.policy;
	const { keys, values, positions, scores, ranks } = cache.tensors;
	const received = Tensor.empty([batch, P, slots + 1], device);
	cache.steps(step, received);
	const [given, places, known] = await Promise.all([received.read(), positions.read(), scores.read()]);
	received.dispose();
	const chosen = new Int32Array(batch * P);
	const fresh = new Float32Array(batch * P);
	for (let i = 0; i < batch * P; i++) {
		const sequence = Math.floor(i / P);
		if (step.lengths?.[sequence] === 0) {
			chosen[i] = slots; // waits: nothing of it is stored
			continue;
		}
		const position = step.seen[sequence]!;
		const held = Math.min(position, slots);
		const row = i * (slots + 1);
		const entries: Entries = {
			layer,
			sequence,
			head: i % P,
			positions: Int32Array.from({ length: held + 1 }, (_, j) => (j < held ? (places as unknown as Int32Array)[i * slots + j]! : position)),
			received: Float32Array.from({ length: held + 1 }, (_, j) => given[row + (j < held ? j : slots)]!),
			scores: Float32Array.from({ length: held + 1 }, (_, j) => (j < held ? known[i * slots + j]! : 0)),
		};
		score(entries);
		fresh[i] = entries.scores[held]!;
		known.set(entries.scores.subarray(0, held), i * slots);
		chosen[i] = held < slots ? held : lowest(entries, sinks, recent);
	}
	scores.write(known);
	const slotsOf = Tensor.empty([batch, P], device, 'i32', chosen);
	const freshOf = Tensor.empty([batch, P], device, 'f32', fresh);
	binding.cachePut(
		step.k.buffer,
		step.v.buffer,
		keys.buffer,
		values.buffer,
		positions.buffer,
		scores.buffer,
		ranks?.buffer ?? null,
		slotsOf.buffer,
		freshOf.buffer,
		step.seenBuffer,
		batch,
		kvHeads,
		headDim,
		slots,
		P,
		dtype === 'f16' ? 1 : 0,
	);
	slotsOf.dispose();
	freshOf.dispose();
}

/** The slot of the lowest score, on a tie of the lowest position; the last entry's is one past the cache. */
function lowest({ positions, scores }: Entries, sinks: number, recent: number): number {
	const newest = positions.at(-1)!;
	let found = -1;
	for (let j = 0; j < positions.length; j++) {
		if (positions[j]! < sinks || positions[j]! > newest - recent) continue;
		const before = found < 0 || scores[j]! < scores[found]! || (scores[j] === scores[found] && positions[j]! < positions[found]!);
		if (before) found = j;
	}
	return found < 0 ? positions.length - 1 : found;
}
