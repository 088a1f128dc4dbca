import { binding } from '../binding.js';
import { type DeviceName, synchronize } from '../device.js';
import { ArgumentError } from '../errors.js';
import { blocks, type StoredWeight, type WeightType } from '../io/pretrained.js';
import { storedKinds } from '../ops/stored.js';
import { Tensor } from '../tensor.js';

/** Types that weights can be converted to when they are loaded. */
export const weightDtypes = ['f32', 'f16', 'bf16', 'q8_0'] as const;
export type WeightDtype = (typeof weightDtypes)[number];

/** @throws ArgumentError any other name */
export function checkDtype(dtype: WeightDtype | undefined): void {
	if (dtype === undefined || weightDtypes.includes(dtype)) return;
	const found = typeof dtype === 'string' ? JSON.stringify(dtype) : String(dtype);
	throw new ArgumentError(`Llama.load: \`dtype\` is ${found}, expected one of ${weightDtypes.join(', ')}`);
}

/**
 * The type that a weight is used in. Vectors are f32, whatever they were; a matrix whose rows are no whole blocks of q8_0 becomes f16, as in
 * files that llama.cpp quantizes.
 */
export function typeUsed({ type, shape }: Pick<StoredWeight, 'type' | 'shape'>, dtype: WeightDtype | undefined): WeightType {
	if (shape.length === 1) return 'f32';
	if (dtype === undefined) return type;
	return shape.at(-1)! % blocks[dtype].numbers === 0 ? dtype : 'f16';
}

/** A matrix in another type; the one that was given is disposed of. Its memory is free again when this is done. */
export async function converted(from: Tensor, type: WeightType, device: DeviceName): Promise<Tensor> {
	const [N, C] = from.shape as [number, number];
	try {
		const to = Tensor.empty(from.shape, device, type);
		try {
			binding.convertStored(from.buffer, to.buffer, storedKinds[from.dtype]!, storedKinds[type]!, N, C);
			await synchronize(device); // what is queued holds its buffers: one matrix at a time
			return to;
		} catch (error) {
			to.dispose();
			throw error;
		}
	} finally {
		from.dispose();
	}
}
