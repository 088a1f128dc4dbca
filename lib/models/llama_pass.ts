import { binding } from '../binding.js';
import type { LayerCache } from '../cache/layer_cache.js';
import type { DeviceName } from '../device.js';
import type { LlamaConfig } from '../io/pretrained.js';
import { persist, type Resource, Tensor } from '../tensor.js';
import { Apart } from './apart.js';
import type { LlamaWeights, Projection } from './llama_weights.js';

/** New tokens of some sequences side by side, and the states that they continue from. */
export interface Pass {
	/** `[B · T]`: T tokens of each sequence, padded behind. */
	readonly ids: Int32Array;
	/** B */
	readonly batch: number;
	/** Tokens of each sequence before these, `[B]`. */
	readonly seen: Int32Array;
	/** How many of T each sequence brings, where they differ. */
	readonly lengths: Int32Array | null;
	/**
	 * By session, and in it one a layer. One session: all sequences are its own. Several: each has one sequence, and brings one token
	 * of it.
	 */
	readonly caches: readonly (readonly LayerCache[])[];
	/** Whether keys lie unturned in the caches, which then turn them themselves. */
	readonly unturned: boolean;
	/** Whether caches take all tokens in before one selection is made of them. */
	readonly select: boolean;
}

/** Rows of activations, kept from pass to pass: work on them is queued in order, so one set serves every session of a model. */
export class Activations implements Resource {
	readonly rows: number;
	/** `[N, C]` the residual stream; and what a layer makes of it. */
	readonly x: Tensor;
	readonly h: Tensor;
	readonly q: Tensor;
	readonly k: Tensor;
	readonly v: Tensor;
	readonly o: Tensor;
	readonly gate: Tensor;
	readonly up: Tensor;

	constructor(rows: number, { dim, hidden, heads, kvHeads, headDim }: LlamaConfig, device: DeviceName) {
		const make = (width: number) => persist(Tensor.empty([rows, width], device));
		this.rows = rows;
		[this.x, this.h, this.q, this.o] = [make(dim), make(dim), make(heads * headDim), make(heads * headDim)];
		[this.k, this.v] = [make(kvHeads * headDim), make(kvHeads * headDim)];
		[this.gate, this.up] = [make(hidden), make(hidden)];
	}

	get #tensors(): readonly Tensor[] {
		return [this.x, this.h, this.q, this.k, this.v, this.o, this.gate, this.up];
	}

	get bytes(): number {
		return this.#tensors.reduce((n, tensor) => n + tensor.bytes, 0);
	}

	get disposed(): boolean {
		return this.x.disposed;
	}

	dispose(): void {
		for (const tensor of this.#tensors) tensor.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}

/** y = x · wᵀ + b */
function project(x: Tensor, { w, b, kind }: Projection, y: Tensor, rows: number): void {
	const [F, C] = w.shape as [number, number];
	binding.linearStored(x.buffer, w.buffer, b?.buffer ?? null, y.buffer, kind, rows, C, F);
}

/**
 * The layers of a decoder over new tokens: leaves the residual stream of every token in `a.x`. Queued; where a cache's policy is
 * a function, there is a promise to wait for in every layer.
 */
export async function runLayers(
	weights: LlamaWeights,
	config: LlamaConfig,
	frequencies: Tensor,
	a: Activations,
	pass: Pass,
): Promise<void> {
	const { heads, kvHeads, headDim, epsilon, rope, dim, hidden, vocabulary } = config;
	const { ids, batch, seen, lengths, caches, unturned, select } = pass;
	const { device } = a.x;
	const N = ids.length;
	const T = N / batch;
	const neighbours = rope.pairs === 'neighbours';
	const held: Tensor[] = [];
	const ints = (values: Int32Array) => {
		const tensor = persist(Tensor.empty([values.length], device, 'i32', values));
		held.push(tensor);
		return tensor.buffer;
	};
	try {
		binding.embedStored(ints(ids), weights.embedding.w.buffer, a.x.buffer, weights.embedding.kind, N, vocabulary, dim);
		let table: Tensor | null = null;
		if (!unturned) {
			const positions = new Int32Array(N);
			for (let i = 0; i < N; i++) positions[i] = seen[Math.floor(i / T)]! + (i % T);
			held.push((table = persist(Tensor.empty([N, headDim], device))));
			binding.rotations(ints(positions), frequencies.buffer, table.buffer, N, headDim / 2, rope.magnitude);
		}
		const seenBuffer = ints(seen);
		const lengthsBuffer = lengths && ints(lengths);
		const apart = caches.length > 1 ? new Apart(caches, config, device, seen) : null;
		if (apart) held.push(...apart.tensors);
		for (const [i, layer] of weights.layers.entries()) {
			binding.rmsNorm(a.x.buffer, layer.attentionNorm.buffer, a.h.buffer, N, dim, epsilon);
			project(a.h, layer.q, a.q, N);
			project(a.h, layer.k, a.k, N);
			project(a.h, layer.v, a.v, N);
			if (table) {
				binding.rope(a.q.buffer, table.buffer, a.q.buffer, N, heads, headDim, neighbours);
				binding.rope(a.k.buffer, table.buffer, a.k.buffer, N, kvHeads, headDim, neighbours);
			}
			const step = { q: a.q, k: a.k, v: a.v, o: a.o, tokens: T, seen, seenBuffer, lengths, lengthsBuffer, select };
			const waits = apart ? apart.attend(i, step) : caches[0]![i]!.attend(step);
			if (waits) await waits;
			project(a.o, layer.o, a.h, N);
			binding.accumulate(a.h.buffer, a.x.buffer, N * dim);
			binding.rmsNorm(a.x.buffer, layer.feedForwardNorm.buffer, a.h.buffer, N, dim, epsilon);
			project(a.h, layer.gate, a.gate, N);
			project(a.h, layer.up, a.up, N);
			binding.swiglu(a.gate.buffer, a.up.buffer, a.gate.buffer, N * hidden);
			project(a.gate, layer.down, a.h, N);
			binding.accumulate(a.h.buffer, a.x.buffer, N * dim);
		}
	} finally {
		for (const tensor of held) tensor.dispose();
	}
}

/** Logits `[rows.length, V]` of what follows the tokens in these rows of the residual stream. */
export function logitsOf(weights: LlamaWeights, config: LlamaConfig, a: Activations, rows: Int32Array): Tensor {
	const { dim, epsilon, vocabulary } = config;
	const n = rows.length;
	const { device } = a.x;
	const x = persist(Tensor.empty([n, dim], device));
	for (let i = 0; i < n; ) {
		let end = i + 1;
		while (end < n && rows[end] === rows[end - 1]! + 1) end++;
		const width = (end - i) * dim;
		binding.copyBlock(a.x.buffer, x.buffer, 1, width, width, rows[i]! * dim, width, i * dim);
		i = end;
	}
	binding.rmsNorm(x.buffer, weights.norm.buffer, x.buffer, n, dim, epsilon);
	const logits = persist(Tensor.empty([n, vocabulary], device));
	project(x, weights.head, logits, n);
	x.dispose();
	return logits;
}
