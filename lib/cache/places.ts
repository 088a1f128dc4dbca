import { noGrad } from '../autograd.js';
import type { DeviceName } from '../device.js';
import type { Rope } from '../io/pretrained.js';
import { rotations, twoFloats } from '../ops/rope.js';
import { persist, Tensor } from '../tensor.js';

/** Cosines and sines of places in a cache, shared by all layers of a session and by its forks. */
export class Places {
	readonly #rope: Rope;
	readonly #device: DeviceName;
	#table: Tensor | undefined;
	#users = 0;

	constructor(rope: Rope, device: DeviceName) {
		this.#rope = rope;
		this.#device = device;
	}

	/** Of the places below `count`, and perhaps of more: `[≥ count, D / 2, 2]`. */
	table(count: number): Tensor {
		if (this.#table && this.#table.shape[0]! >= count) return this.#table;
		this.#table?.dispose();
		return (this.#table = this.of(Int32Array.from({ length: count }, (_, i) => i)));
	}

	/** Of any places, `[places.length, D / 2, 2]`; the caller's own. */
	of(places: Int32Array): Tensor {
		const { frequencies, magnitude } = this.#rope;
		return noGrad(() => {
			const positions = Tensor.empty([places.length], this.#device, 'i32', places);
			const pairs = Tensor.empty([frequencies.length, 2], this.#device, 'f32', twoFloats(frequencies));
			const table = persist(rotations(positions, pairs, { magnitude }));
			positions.dispose();
			pairs.dispose();
			return table;
		});
	}

	/** One more session that uses it. */
	share(): this {
		this.#users++;
		return this;
	}

	/** One fewer: the last one frees it. */
	release(): void {
		if (--this.#users > 0) return;
		this.#table?.dispose();
		this.#table = undefined;
	}
}
