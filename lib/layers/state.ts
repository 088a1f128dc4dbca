import { noGrad } from '../autograd.js';
import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { ArgumentError, DisposedError } from '../errors.js';
import { join } from '../ops/join.js';
import { zeros } from '../ops/zeros.js';
import { persist, type Resource, scope, Tensor } from '../tensor.js';
import { type Description, decode, encode } from './snapshot.js';

/**
 * What a layer remembers of the tokens that it has seen: an argument of `forward`, which moves it on. Aaren's has a fixed
 * size, (m, u, w) of ⊕, and so has Performer's, (c, z, S); attention's grows with every token.
 */
export class State implements Resource {
	/** Which layer it belongs to: `aaren`, `performer`, `attention`, `stack`, … */
	readonly kind: string;
	/** Sequences side by side. */
	readonly batch: number;
	/** Tokens seen. */
	length: number;
	/** States of the layers that a stack is made of. */
	readonly parts: readonly State[];
	/** What else its numbers depend on, as JSON: states of one kind that differ in it do not fit together. */
	readonly about: Readonly<Record<string, unknown>> | undefined;
	readonly #tensors = new Map<string, Tensor>();
	#disposed = false;

	constructor(
		kind: string,
		batch: number,
		tensors: Readonly<Record<string, Tensor>> = {},
		parts: readonly State[] = [],
		length = 0,
		about?: State['about'],
	) {
		this.kind = kind;
		this.batch = batch;
		this.length = length;
		this.parts = parts;
		this.about = about;
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
			this.about,
		);
	}

	/**
	 * This state followed by `next`, a state of the tokens right after: (m, u, w) ⊕ (m, u, w). Only states that are one set
	 * under ⊕ can be merged (see `merges`); in a stack, what the second layer saw depends on all tokens before.
	 */
	merge(next: State): State {
		this.check();
		next.check();
		const merge = merges.get(this.kind);
		if (!merge || this.kind !== next.kind) {
			throw new ArgumentError(
				`merge: found states of kind ${this.kind} and ${next.kind}, expected two of one kind among ${[...merges.keys()].join(', ')}`,
			);
		}
		const abouts = [this.about, next.about].map((about) => JSON.stringify(about) ?? 'nothing');
		if (abouts[0] !== abouts[1]) throw new ArgumentError(`merge: found states of ${abouts.join(' and ')}, expected the same`);
		const both = noGrad(() => scope(() => merge(this, next)));
		return new State(this.kind, this.batch, both, [], this.length + next.length, this.about);
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
		return { kind: this.kind, batch: this.batch, length: this.length, tensors, parts, ...(this.about && { about: this.about }) };
	}

	static #build({ kind, batch, length, tensors, parts, about }: Description, device: DeviceName | undefined): State {
		const made: Record<string, Tensor> = {};
		for (const { name, shape, data } of tensors) made[name] = Tensor.empty(shape, device, 'f32', data);
		return new State(
			kind,
			batch,
			made,
			parts.map((part) => State.#build(part, device)),
			length,
			about,
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

type Merge = (a: State, b: State) => Record<string, Tensor>;

/** States of one set of tokens, by kind, and how two of them join under ⊕. */
const merges: ReadonlyMap<string, Merge> = new Map([
	['aaren', joinScans],
	['cross', joinScans],
	['performer', joinFeatures],
]);

function joinScans(a: State, b: State): Record<string, Tensor> {
	const part = (state: State) => ({ m: state.get('m'), u: state.get('u'), w: state.get('w') });
	return { ...join(part(a), part(b)) };
}

/** (c, z, S) is ⊕'s (m, u, w) with M sums of weights in place of one: z and S both join as w does, and there is no u. */
function joinFeatures(a: State, b: State): Record<string, Tensor> {
	const { shape } = a.get('S');
	const [B, H] = shape as [number, number];
	const u = zeros([B, H], a.device);
	const part = (state: State, name: string) => {
		const tensor = state.get(name);
		return { m: state.get('c'), u, w: tensor.view([...tensor.shape.slice(0, 2), tensor.size / (B * H)]) };
	};
	const { m: c, w: z } = join(part(a, 'z'), part(b, 'z'));
	const { w: S } = join(part(a, 'S'), part(b, 'S'));
	return { c, z, S: S.view(shape) };
}

function copyOf(tensor: Tensor): Tensor {
	const copy = Tensor.empty(tensor.shape, tensor.device);
	binding.scale(tensor.buffer, copy.buffer, 1, tensor.size);
	return copy;
}
