import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { ArgumentError } from '../errors.js';
import { ropeFrequencies } from '../io/rope.js';
import { reshape } from '../ops/elementwise.js';
import { rope, rotations, twoFloats } from '../ops/rope.js';
import { persist, type Resource, Tensor } from '../tensor.js';

/**
 * Rotary positions of a layer's queries and keys: neighbouring numbers of a head turn by position · 10,000^(−2i/D), so that
 * their products depend on how far apart two tokens are, not on where.
 * @see Su et al. 2021, "RoFormer", section 3.4
 */
export class Rotary implements Resource {
	/** D */
	readonly #width: number;
	/** `[D / 2, 2]` */
	readonly #frequencies: Tensor;
	/** Of a step: its position and the angles there, kept from step to step as in `Scratch`. */
	readonly #position: Tensor;
	readonly #angles: Tensor;

	/** @param where for the error @param width D, numbers a head: an even number */
	constructor(where: string, width: number, device: DeviceName = 'cpu') {
		if (width % 2) throw new ArgumentError(`${where}: rope with heads of ${width} numbers, expected an even number`);
		this.#width = width;
		const { frequencies } = ropeFrequencies(width, 10_000, null);
		this.#frequencies = persist(Tensor.empty([width / 2, 2], device, 'f32', twoFloats(frequencies)));
		this.#position = persist(Tensor.empty([1], device, 'i32'));
		this.#angles = persist(Tensor.empty([1, width / 2, 2], device));
	}

	/**
	 * @param items `[B, T, H, D]` each @param first the position of token 0
	 * @returns each turned, as long as it was
	 */
	turn<Items extends readonly Tensor[]>(items: Items, first: number): Items {
		const [B, T, , D] = items[0]!.shape as [number, number, number, number];
		const { device } = this.#frequencies;
		const positions = Tensor.empty(
			[T],
			device,
			'i32',
			Int32Array.from({ length: T }, (_, t) => first + t),
		);
		const once = rotations(positions, this.#frequencies);
		let table = once;
		if (B > 1) {
			table = Tensor.empty([B * T, D / 2, 2], device);
			binding.copyBlock(once.buffer, table.buffer, B, T * D, 0, 0, T * D, 0);
		}
		const turned = items.map((x) => reshape(rope(reshape(x, [B * T, x.shape[2]!, D]), table, 'neighbours'), x.shape));
		return turned as readonly Tensor[] as Items;
	}

	/** `turn` in place for one token of each sequence, without checks or a tape. @param items B · H heads each */
	turnOne(items: readonly Tensor[], position: number): void {
		this.#position.write(Int32Array.of(position));
		binding.rotations(this.#position.buffer, this.#frequencies.buffer, this.#angles.buffer, 1, this.#width / 2, 1);
		for (const { buffer, size } of items) binding.rope(buffer, this.#angles.buffer, buffer, 1, size / this.#width, this.#width, true);
	}

	get bytes(): number {
		return this.#frequencies.bytes + this.#position.bytes + this.#angles.bytes;
	}

	get disposed(): boolean {
		return this.#frequencies.disposed;
	}

	dispose(): void {
		for (const tensor of [this.#frequencies, this.#position, this.#angles]) tensor.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}
