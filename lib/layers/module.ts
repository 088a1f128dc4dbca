import type { DeviceName } from '../device.js';
import { DisposedError } from '../errors.js';
import type { Resource, Tensor } from '../tensor.js';

/** A whole number that a module keeps beside its parameters, and needs back to be the same: files and checkpoints hold it. */
export interface Whole {
	value: number;
	/** It is at least 0 and less than this. */
	readonly below: number;
}

/** Something with parameters: a layer, or a model made of layers. */
export abstract class Module implements Resource {
	/** Dropout is active. Set by `fit`, cleared after it. */
	training = false;
	#disposed = false;
	#seed = 0;
	#draws = 0;
	readonly #own = new Map<string, Tensor>();
	readonly #wholes = new Map<string, Whole>();
	readonly #children = new Map<string, Module>();

	/** Parameters by name, those of parts with the part's name and a dot before: as in the saved file. */
	parameters(): Map<string, Tensor> {
		const all = new Map(this.#own);
		for (const [name, child] of this.#children) {
			for (const [inner, parameter] of child.parameters()) all.set(`${name}.${inner}`, parameter);
		}
		return all;
	}

	/** Whole numbers that belong to the module beside its parameters, by name as those. Setting one changes the module. */
	wholes(): Map<string, Whole> {
		const all = new Map(this.#wholes);
		for (const [name, child] of this.#children) {
			for (const [inner, whole] of child.wholes()) all.set(`${name}.${inner}`, whole);
		}
		return all;
	}

	/** Numbers in all parameters together. */
	get parameterCount(): number {
		let n = 0;
		for (const parameter of this.parameters().values()) n += parameter.size;
		return n;
	}

	get device(): DeviceName {
		const [first] = this.parameters().values();
		return first?.device ?? 'cpu';
	}

	get bytes(): number {
		let n = 0;
		for (const parameter of this.parameters().values()) n += parameter.bytes;
		return n;
	}

	get disposed(): boolean {
		return this.#disposed;
	}

	/** This module and every part of it. */
	*modules(): Generator<Module> {
		yield this;
		for (const child of this.#children.values()) yield* child.modules();
	}

	/**
	 * Turn dropout on or off in every part. Turned on, a training step begins: `fit` calls this once a step, as any training must
	 * whose layers draw anew every so many steps.
	 * @param seed of the masks to come: the same seed brings the same masks, so a resumed training repeats them. @default 0
	 */
	setTraining(on: boolean, seed = 0): void {
		let place = 0;
		for (const module of this.modules()) {
			module.training = on;
			module.#seed = (seed * 1021 + place++) * 64;
			module.#draws = 0;
			if (on) module.beginStep();
		}
	}

	/** For subclasses: what happens before each training step. */
	protected beginStep(): void {}

	/** For subclasses: the seed of one dropout mask. */
	protected drawSeed(): number {
		return (this.#seed + this.#draws++) % 2 ** 53;
	}

	/** Free the parameters, their gradients and those of every part. */
	dispose(): void {
		if (this.#disposed) return;
		this.#disposed = true;
		for (const parameter of this.#own.values()) {
			parameter.grad?.dispose();
			parameter.dispose();
		}
		for (const child of this.#children.values()) child.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}

	/** For subclasses: own a parameter. */
	protected parameter(name: string, value: Tensor): Tensor {
		value.requiresGrad = true;
		value.persistent = true;
		this.#own.set(name, value);
		return value;
	}

	/** For subclasses: own a whole number. */
	protected whole(name: string, place: Whole): void {
		this.#wholes.set(name, place);
	}

	/** For subclasses: own a part. */
	protected part<M extends Module>(name: string, module: M): M {
		this.#children.set(name, module);
		return module;
	}

	protected check(): void {
		if (this.#disposed) throw new DisposedError(`${this.constructor.name} has been disposed of`);
	}
}
