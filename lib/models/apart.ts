import { binding } from '../binding.js';
import type { LayerCache, Step } from '../cache/layer_cache.js';
import type { DeviceName } from '../device.js';
import type { LlamaConfig } from '../io/pretrained.js';
import { persist, Tensor } from '../tensor.js';

/** Attention of several sessions that share a pass: each takes its row out of the batch, and puts its result back. */
export class Apart {
	readonly #caches: readonly (readonly LayerCache[])[];
	readonly #seen: Int32Array;
	readonly #rows: { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor; readonly o: Tensor; readonly seen: readonly Tensor[] };

	constructor(caches: readonly (readonly LayerCache[])[], { heads, kvHeads, headDim }: LlamaConfig, device: DeviceName, seen: Int32Array) {
		const row = (width: number) => persist(Tensor.empty([width], device));
		this.#caches = caches;
		this.#seen = seen;
		this.#rows = {
			q: row(heads * headDim),
			k: row(kvHeads * headDim),
			v: row(kvHeads * headDim),
			o: row(heads * headDim),
			seen: Array.from(seen, (n) => persist(Tensor.empty([1], device, 'i32', Int32Array.of(n)))),
		};
	}

	/** What it holds; the caller frees it. */
	get tensors(): readonly Tensor[] {
		const { q, k, v, o, seen } = this.#rows;
		return [q, k, v, o, ...seen];
	}

	/** Layer i. Sessions whose policy is a function are waited for. */
	attend(layer: number, step: Step): Promise<void> | undefined {
		for (const session of this.#caches.keys()) {
			const waits = this.#one(layer, session, step);
			if (waits) return this.#rest(layer, session, step, waits);
		}
		return undefined;
	}

	/** From a session on that has to be waited for. */
	async #rest(layer: number, first: number, step: Step, waits: Promise<void>): Promise<void> {
		await waits;
		this.#put(first, step.o);
		for (let session = first + 1; session < this.#caches.length; session++) {
			const next = this.#one(layer, session, step);
			if (next) {
				await next;
				this.#put(session, step.o);
			}
		}
	}

	#one(layer: number, session: number, { q, k, v, o }: Step): Promise<void> | undefined {
		const rows = this.#rows;
		for (const [all, one] of [
			[q, rows.q],
			[k, rows.k],
			[v, rows.v],
		] as const) {
			binding.copyBlock(all.buffer, one.buffer, 1, one.size, one.size, session * one.size, one.size, 0);
		}
		const waits = this.#caches[session]![layer]!.attend({
			...rows,
			tokens: 1,
			seen: this.#seen.subarray(session, session + 1),
			seenBuffer: rows.seen[session]!.buffer,
			lengths: null,
			lengthsBuffer: null,
			select: false,
		});
		if (!waits) this.#put(session, o);
		return waits;
	}

	#put(session: number, o: Tensor): void {
		const { size } = this.#rows.o;
		binding.copyBlock(this.#rows.o.buffer, o.buffer, 1, size, size, 0, size, session * size);
	}
}
