// Sessions that hold states which nothing was fed for: time does not depend on what a cache holds, and feeding 64 sequences
// of 4,096 tokens takes longer than everything that is then measured.
import { binding, numbers, require } from './machine.mjs';

const { LayerCache } = require('../dist/cache/layer_cache.js');
const { Session } = require('../dist/models/session.js');

/** Random states that caches are filled with, one after the other. */
const STATES = 64;

/**
 * @param model a `Llama`
 * @param {{ cache: import('../lib/cache/policy.js').Policy, states: number, batch?: number, dtype?: 'f32' | 'f16', room?: number }} options
 * `states`: held by each sequence, at most the policy's size; `room`: how many more a cache without bounds has memory for
 * @returns {{ session: Session, caches: LayerCache[], rewind: () => void }} one cache a layer; `rewind`: as if nothing had come since
 */
export function filled(model, { cache, states, batch = 1, dtype = 'f32', room = 64 }) {
	const { layers, heads, kvHeads, headDim, vocabulary, rope, slidingWindow } = model.config;
	const shape = { batch, heads, kvHeads, headDim, device: 'cpu', dtype, neighbours: rope.pairs === 'neighbours', table: null };
	const width = kvHeads * headDim;
	const caches = Array.from({ length: layers }, (_, i) => {
		const made = new LayerCache(i, cache, shape, slidingWindow[i] ?? null);
		const slots = cache.size === Infinity ? states + room : cache.size;
		if (cache.size === Infinity) made.resize(slots, (batch * slots * width * (dtype === 'f16' ? 2 : 4)) / 4);
		return made;
	});
	fill(caches, batch, width, dtype);
	const seen = new Int32Array(batch).fill(states);
	const running = { policies: caches.map(() => cache), caches, seen, logits: new Float32Array(batch * vocabulary), places: null };
	return { session: new Session(model, { cache, batch, dtype }, running), caches, rewind: () => seen.fill(states) };
}

function fill(caches, batch, width, dtype) {
	const rows = binding.create('cpu', STATES * width * 4, numbers(STATES * width));
	const halves = binding.create('cpu', STATES * width * 2, null);
	binding.narrow(rows, halves, 0, STATES * width);
	const from = dtype === 'f16' ? halves : rows;
	const row = (width * (dtype === 'f16' ? 2 : 4)) / 4; // in numbers of 32 bits, whatever they are
	for (const { tensors, slots } of caches) {
		for (const { buffer } of [tensors.keys, tensors.values]) {
			for (let at = 0; at < batch * slots; at += STATES) {
				const count = Math.min(STATES, batch * slots - at) * row;
				binding.copyBlock(from, buffer, 1, count, STATES * row, 0, batch * slots * row, at * row);
			}
		}
	}
	binding.dispose(rows);
	binding.dispose(halves);
}
