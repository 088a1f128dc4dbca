import type { Buffer } from '../../binding.js';
import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { DisposedError } from '../errors.js';
import { persist, type Resource, Tensor } from '../tensor.js';
import { fill } from './fill.js';
import { evictBySelf } from './own_policy.js';
import type { Places } from './places.js';
import type { Policy } from './policy.js';
import { select } from './select.js';

/** What all layers' caches of a session have in common. */
export interface CacheShape {
	/** B */
	readonly batch: number;
	/** H */
	readonly heads: number;
	/** G */
	readonly kvHeads: number;
	/** D */
	readonly headDim: number;
	readonly device: DeviceName;
	/** How keys and values are stored. */
	readonly dtype: 'f32' | 'f16';
	readonly neighbours: boolean;
	/** Where keys are turned by their places in the cache, and lie unturned in it. Null: they come turned, by their position. */
	readonly places: Places | null;
}

/** Tokens on their way through a layer: q `[B, T, H, D]`, k and v `[B, T, G, D]`, o as q. */
export interface Step {
	readonly q: Tensor;
	readonly k: Tensor;
	readonly v: Tensor;
	readonly o: Tensor;
	/** T: tokens a sequence, padding included. */
	readonly tokens: number;
	/** Tokens of each sequence before these, `[B]`: here and on the device. */
	readonly seen: Int32Array;
	readonly seenBuffer: Buffer;
	/** How many of T each sequence brings, where they differ: here and on the device. */
	readonly lengths: Int32Array | null;
	readonly lengthsBuffer: Buffer | null;
	/** Whether all tokens are taken in before one selection is made of them (select.ts). */
	readonly select: boolean;
}

const rules = { never: 0, oldest: 1, leastAttended: 2, outside: 3 } as const;

/** More positions than there are: no window of the model's own. */
const unbounded = 2 ** 31 - 1;

/** From so many tokens on, a cache that only fills takes them as one product and not one by one. */
const FEW = 8;

/** Slots that a cache of unbounded size begins with; it doubles when they are full. */
const FIRST_SLOTS = 64;

/** A cache's memory, shared by a session and its forks until one of them writes. */
interface Memory {
	readonly tensors: { keys: Tensor; values: Tensor; positions: Tensor; scores: Tensor; ranks: Tensor | null };
	readonly slots: number;
	users: number;
}

/** The states that one layer holds for each sequence of a session: keys, values, and what their policy knows of them. */
export class LayerCache implements Resource {
	readonly layer: number;
	readonly policy: Policy;
	readonly shape: CacheShape;
	/** A query sees this many newest positions. */
	readonly reach: number;
	#memory: Memory | undefined;

	/** @param reach the model's own sliding window, or null */
	constructor(layer: number, policy: Policy, shape: CacheShape, reach: number | null, memory?: Memory) {
		this.layer = layer;
		this.policy = policy;
		this.shape = shape;
		this.reach = reach ?? unbounded;
		this.#memory = memory ?? this.#make(policy.size === Infinity ? FIRST_SLOTS : policy.size);
		this.#memory.users++;
	}

	/** P: sets of entries that are kept apart. */
	get choosers(): number {
		return this.policy.heads === 'own' ? this.shape.kvHeads : 1;
	}

	get slots(): number {
		return this.#own().slots;
	}

	get bytes(): number {
		let n = 0;
		if (this.#memory) for (const tensor of Object.values(this.#memory.tensors)) n += tensor?.bytes ?? 0;
		return n;
	}

	get disposed(): boolean {
		return this.#memory === undefined;
	}

	/** Its tensors, for snapshots. */
	get tensors(): Memory['tensors'] {
		return this.#own().tensors;
	}

	/**
	 * The tokens attend to the states that are held and to each other; then states are overwritten as the policy says. Queued like an
	 * operation; a policy of one's own needs numbers back from the device, so there is a promise to wait for.
	 */
	attend(step: Step): Promise<void> | undefined {
		const longest = step.seen.reduce((a, b) => Math.max(a, b), 0) + step.tokens;
		this.#write(longest);
		if (typeof this.policy.score === 'function') return evictBySelf(this, step, this.policy.score);
		if (step.select && longest > this.slots) return select(this, step);
		if (this.#fills(step, longest)) fill(this, step);
		else this.steps(step, null);
		return undefined;
	}

	/** Token after token. `received`: for a single token, what every entry received goes here and nothing is evicted from a full cache. */
	steps(step: Step, received: Tensor | null): void {
		const { batch, heads, kvHeads, headDim, neighbours, places, dtype } = this.shape;
		const { keys, values, positions, scores, ranks } = this.#own().tensors;
		const { score, sinks, recent, size, memory = 0 } = this.policy;
		const rule = received ? 'outside' : size === Infinity ? 'never' : score === 'position' ? 'oldest' : 'leastAttended';
		binding.cacheAttend(
			step.q.buffer,
			step.k.buffer,
			step.v.buffer,
			keys.buffer,
			values.buffer,
			positions.buffer,
			scores.buffer,
			ranks?.buffer ?? null,
			ranks ? places!.table(this.slots + 1).buffer : null,
			step.seenBuffer,
			step.lengthsBuffer,
			step.o.buffer,
			received?.buffer ?? null,
			batch,
			step.tokens,
			heads,
			kvHeads,
			headDim,
			this.slots,
			this.choosers,
			rules[rule],
			sinks,
			recent,
			memory,
			this.reach,
			dtype === 'f16' ? 1 : 0,
			neighbours,
		);
	}

	/** Whether the tokens only fill free slots, in the order of their positions. */
	#fills({ tokens, seen, lengths }: Step, longest: number): boolean {
		const { batch } = this.shape;
		const { score, memory = 0 } = this.policy;
		const summed = score !== 'attention' || memory === 0 || memory === 1; // a fading sum needs a step for each token
		const together = lengths === null && seen.every((n) => n === seen[0]) && (batch === 1 || !this.tensors.ranks);
		return tokens >= FEW && summed && together && longest <= Math.min(this.slots, this.reach);
	}

	/**
	 * For snapshots: memory of its own with this many slots, where the size is unbounded.
	 * @param numbers that the keys of a cache of so many slots would take, in 32 bits each: nothing is made that does not fit
	 */
	resize(slots: number, numbers: number): void {
		const { batch, kvHeads, headDim, dtype } = this.shape;
		if (slots === this.slots || numbers * 4 !== batch * slots * kvHeads * headDim * (dtype === 'f16' ? 2 : 4)) return;
		const after = this.#make(slots);
		this.dispose();
		this.#memory = after;
		after.users++;
	}

	/** A cache that goes its own way from here: memory is copied when either of the two writes. */
	fork(): LayerCache {
		return new LayerCache(this.layer, this.policy, this.shape, this.reach, this.#own());
	}

	dispose(): void {
		const memory = this.#memory;
		this.#memory = undefined;
		if (memory && --memory.users === 0) for (const tensor of Object.values(memory.tensors)) tensor?.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}

	#own(): Memory {
		if (!this.#memory) throw new DisposedError(`the cache of layer ${this.layer} has been disposed of`);
		return this.#memory;
	}

	#make(slots: number): Memory {
		const { batch, kvHeads, headDim, device, dtype, places } = this.shape;
		const P = this.choosers;
		const order = Int32Array.from({ length: batch * P * slots }, (_, i) => i % slots);
		// While nothing has gone, slot, position and rank are the same.
		const ints = () => persist(Tensor.empty([batch, P, slots], device, 'i32', order));
		const rows = () => persist(Tensor.empty([batch, kvHeads, slots, headDim], device, dtype));
		const ranks = places ? ints() : null;
		const scores = persist(Tensor.empty([batch, P, slots], device, 'f32', new Float32Array(order.length)));
		return { tensors: { keys: rows(), values: rows(), positions: ints(), scores, ranks }, slots, users: 0 };
	}

	/** Memory of its own, with room for `tokens` where the size is unbounded. */
	#write(tokens: number): void {
		const before = this.#own();
		const grows = this.policy.size === Infinity && tokens > before.slots;
		if (before.users === 1 && !grows) return;
		const after = this.#make(grows ? Math.max(2 * before.slots, tokens) : before.slots);
		for (const name of ['keys', 'values', 'positions', 'scores', 'ranks'] as const) {
			const [from, to] = [before.tensors[name], after.tensors[name]];
			if (!from || !to || (grows && name !== 'keys' && name !== 'values')) continue;
			// In numbers of 32 bits, whatever they are.
			const blocks = this.shape.batch * (name === 'keys' || name === 'values' ? this.shape.kvHeads : this.choosers);
			const [width, room] = [from.bytes / blocks / 4, to.bytes / blocks / 4];
			binding.copyBlock(from.buffer, to.buffer, blocks, width, width, 0, room, 0);
		}
		this.dispose();
		this.#memory = after;
		after.users++;
	}
}
