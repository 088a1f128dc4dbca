import type { DeviceName } from '../device.js';
import { persist, Tensor } from '../tensor.js';

/**
 * Where a streaming step puts what it works out on the way, kept from step to step: a step is a dozen small operations, and
 * making, checking and freeing a tensor for each would take longer than their arithmetic. Work on it is queued in order, so
 * one scratch serves every stream of a layer.
 */
export class Scratch<Name extends string> {
	readonly #widths: Readonly<Record<Name, number>>;
	#batch = 0;
	#tensors: Readonly<Record<Name, Tensor>> | undefined;

	/** @param widths numbers a token, by name */
	constructor(widths: Readonly<Record<Name, number>>) {
		this.#widths = widths;
	}

	/** Tensors `[batch, 1, width]` by name; their numbers are what the step before left there. */
	of(batch: number, device: DeviceName): Readonly<Record<Name, Tensor>> {
		if (this.#tensors && this.#batch === batch) return this.#tensors;
		this.dispose();
		const made: Record<string, Tensor> = {};
		for (const [name, width] of Object.entries<number>(this.#widths)) made[name] = persist(Tensor.empty([batch, 1, width], device));
		this.#batch = batch;
		this.#tensors = made as Record<Name, Tensor>;
		return this.#tensors;
	}

	dispose(): void {
		for (const tensor of Object.values<Tensor>(this.#tensors ?? {})) tensor.dispose();
		this.#tensors = undefined;
	}
}
