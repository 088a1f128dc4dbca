import { FormatError } from '../errors.js';
import type { SafetensorsFile, StoredTensor } from '../io/safetensors.js';
import type { Module } from '../layers/module.js';
import type { Tensor } from '../tensor.js';

/** Tensors read back from their device, as a safetensors file keeps them. */
export async function stored(tensors: ReadonlyMap<string, Tensor>): Promise<Map<string, StoredTensor>> {
	const read = await Promise.all([...tensors].map(async ([name, tensor]) => [name, tensor.shape, await tensor.read()] as const));
	return new Map(
		read.map(([name, shape, { buffer, byteOffset, byteLength }]) => [
			name,
			{ dtype: 'F32', shape, data: new Uint8Array(buffer, byteOffset, byteLength) },
		]),
	);
}

/**
 * Overwrite a model's parameters with those of a file. All are checked before any is written.
 * @param prefix before every name in the file
 * @throws FormatError if a parameter is missing or of another shape
 */
export async function readParameters(file: SafetensorsFile, model: Module, prefix = ''): Promise<void> {
	const parameters = [...model.parameters()];
	for (const [name, { shape }] of parameters) {
		const found = file.entry(prefix + name).shape;
		if (found.length !== shape.length || found.some((size, axis) => size !== shape[axis])) {
			throw new FormatError(file.path, `\`${prefix}${name}\` has shape [${found.join(', ')}], expected [${shape.join(', ')}]`);
		}
	}
	for (const [name, parameter] of parameters) parameter.write(await file.floats(prefix + name));
}
