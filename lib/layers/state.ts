import { noGrad } from '../autograd.js';
import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { ArgumentError, DisposedError } from '../errors.js';
import { join } from '../ops/join.js';
import { persist, type Resource, Tensor } from '../tensor.js';
import { type Description, decode, encode } from './snapshot.js';

/**
 * What a layer remembers of the tokens that it has seen: an argument of `forward`, which moves it on. Aaren's has a fixed
 * size, (m, u, w) of ⊕; attention's grows with every token.
 */
export class State implements Resource {
	/** Which layer it belongs to: `aaren`, `attention`, `stack`, … */
	readonly kind: string;
	/** Sequences side by side. */
	readonly batch: number;
	/** Tokens seen. */
	length: number;
	/** States of the layers that a stack is made of. */
	readonly parts: readonly State[];
	readonly #tensors = new Map<string, Tensor>();
	#disposed = false;

	constructor(kind: string, batch: number, tensors: Readonly<Record<string, Tensor>> = {}, parts: readonly State[] = [], length = 0) {
		this.kind = kind;
		this.batch = batch;
		this.length = length;
		this.parts = parts;
		for (const [name, tensor] of Object.entries(tensors)) this.set(name, tensor);
	}

	/** The tensor of this name. */
	get(name: string): Tensor {
		this.check();
		const tensor = this.#tensors.get(name);
		if (!tensor) throw new ArgumentError(`state of kind ${this.kind}: there is no \`${name}\``);
		return tensor;
	}

	/** Replace a tensor; the one before is freed unless a tape still needs it. */
	set(name: string, tensor: Tensor): void {
		const before = this.#tensors.get(name);
		if (before === tensor) return;
		this.#tensors.set(name, persist(tensor));
		if (before && !before.requiresGrad && !tensor.requiresGrad) before.dispose();
	}

	get device(): DeviceName {
		for (const tensor of this.#tensors.values()) return tensor.device;
		return this.parts[0]?.device ?? 'cpu';
	}

	/** Bytes held: what a stream costs to keep. */
	get bytes(): number {
		let n = 0;
		for (const tensor of this.#tensors.values()) n += tensor.bytes;
		for (const part of this.parts) n += part.bytes;
		return n;
	}

	get disposed(): boolean {
		return this.#disposed;
	}

	/** Every tensor, of parts too: `scope` keeps them when a state is returned from it. */
	*tensors(): Generator<Tensor> {
		yield* this.#tensors.values();
		for (const part of this.parts) yield* part.tensors();
	}

	/** A copy that goes its own way from here. */
	clone(): State {
		this.check();
		const copies: Record<string, Tensor> = {};
		for (const [name, tensor] of this.#tensors) copies[name] = copyOf(tensor);
		return new State(
			this.kind,
			this.batch,
			copies,
			this.parts.map((part) => part.clone()),
			this.length,
		);
	}

	/**
	 * This state followed by `next`, a state of the tokens right after: (m, u, w) ⊕ (m, u, w). Only states that are one set
	 * under ⊕ can be merged (kind `aaren` and `cross`); in a stack, what the second layer saw depends on all tokens before.
	 */
	merge(next: State): State {
		this.check();
		next.check();
		if (!mergeable.has(this.kind) || this.kind !== next.kind) {
			throw new ArgumentError(
				`merge: found states of kind ${this.kind} and ${next.kind}, expected two of one kind among ${[...mergeable].join(', ')}`,
			);
		}
		const both = noGrad(() => join(this.#scan(), next.#scan()));
		return new State(this.kind, this.batch, { ...both }, [], this.length + next.length);
	}

	#scan() {
		return { m: this.get('m'), u: this.get('u'), w: this.get('w') };
	}

	/** The state as bytes: versioned and checksummed, readable on any machine and device. */
	async snapshot(): Promise<Uint8Array> {
		this.check();
		return encode(await this.#describe());
	}

	/**
	 * A state from its snapshot.
	 * @throws FormatError if the bytes are not a whole and unchanged snapshot
	 */
	static restore(blob: Uint8Array, options: { readonly device?: DeviceName } = {}): State {
		return State.#build(decode(blob), options.device);
	}

	async #describe(): Promise<Description> {
		const tensors: Description['tensors'] = [];
		for (const [name, tensor] of this.#tensors) tensors.push({ name, shape: tensor.shape, data: await tensor.read() });
		const parts = await Promise.all(this.parts.map((part) => part.#describe()));
		return { kind: this.kind, batch: this.batch, length: this.length, tensors, parts };
	}

	static #build({ kind, batch, length, tensors, parts }: Description, device: DeviceName | undefined): State {
		const made: Record<string, Tensor> = {};
		for (const { name, shape, data } of tensors) made[name] = Tensor.empty(shape, device, 'f32', data);
		return new State(
			kind,
			batch,
			made,
			parts.map((part) => State.#build(part, device)),
			length,
		);
	}

	dispose(): void {
		if (this.#disposed) return;
		this.#disposed = true;
		for (const tensor of this.#tensors.values()) tensor.dispose();
		for (const part of this.parts) part.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}

	/** @throws unless this is a state of this kind and batch */
	expect(where: string, kind: string, batch: number): void {
		this.check();
		if (this.kind !== kind) throw new ArgumentError(`${where}: the state is of kind ${this.kind}, expected ${kind}`);
		if (this.batch !== batch) throw new ArgumentError(`${where}: the state is of ${this.batch} sequences, expected ${batch} as in x`);
	}

	private check(): void {
		if (this.#disposed) throw new DisposedError(`state of kind ${this.kind} has been disposed of`);
	}
}

const mergeable = new Set(['aaren', 'cross']);

function copyOf(tensor: Tensor): Tensor {
	const copy = Tensor.empty(tensor.shape, tensor.device);
	binding.scale(tensor.buffer, copy.buffer, 1, tensor.size);
	return copy;
}
