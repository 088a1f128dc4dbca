import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';

export interface RotationsOptions {
	/** What cosine and sine are multiplied by. @default 1 */
	readonly magnitude?: number;
}

/** Doubles as sums of two floats each, `[n, 2]`: angles of far positions need more digits than a float has. */
export function twoFloats(values: ArrayLike<number>): Float32Array {
	const pairs = new Float32Array(2 * values.length);
	for (let i = 0; i < values.length; i++) {
		pairs[2 * i] = values[i]!;
		pairs[2 * i + 1] = values[i]! - pairs[2 * i]!;
	}
	return pairs;
}

/**
 * Cosines and sines of rotary positions, worked out once for all layers.
 * @param positions `[n]`, i32
 * @param frequencies radians a position, `[D / 2, 2]`: as `twoFloats` makes them
 * @returns `[n, D / 2, 2]`
 * @see Su et al. 2021, "RoFormer", section 3.4
 */
export function rotations(positions: Tensor, frequencies: Tensor, options: RotationsOptions = {}): Tensor {
	const { n, half } = dims('rotations', { positions: [positions, 'n', 'i32'], frequencies: [frequencies, 'half 2'] });
	const table = Tensor.empty([n, half, 2], positions.device);
	binding.rotations(positions.buffer, frequencies.buffer, table.buffer, n, half, options.magnitude ?? 1);
	return table;
}

/**
 * Turn pairs of each head's numbers by the angles of their positions. Its gradient is the turn back.
 * @param x `[n, H, D]`
 * @param table `[n, D / 2, 2]`: from `rotations`; a constant, no gradient flows into it
 * @param pairs which numbers turn together: neighbours (2i, 2i + 1), or (i, i + D / 2)
 */
export function rope(x: Tensor, table: Tensor, pairs: 'neighbours' | 'halves'): Tensor {
	const { n, H, D, half } = dims('rope', { x: [x, 'n H D'], table: [table, 'n half 2'] });
	if (D !== 2 * half) throw new ArgumentError(`rope: heads of ${D} numbers, expected ${2 * half} as in the table`);
	const y = Tensor.empty(x.shape, x.device);
	const neighbours = pairs === 'neighbours';
	binding.rope(x.buffer, table.buffer, y.buffer, n, H, D, neighbours);
	record([x], [y], ([g]) => {
		const dx = Tensor.empty(x.shape, x.device);
		binding.ropeBackward(g!.buffer, table.buffer, dx.buffer, n, H, D, neighbours);
		return [dx];
	});
	return y;
}
