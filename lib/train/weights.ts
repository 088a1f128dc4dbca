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

/** A model's whole numbers, as JSON. */
export type Wholes = Readonly<Record<string, number>>;

/** Undefined where the model has none. */
export function wholesOf(model: Module): Wholes | undefined {
	const all = [...model.wholes()].map(([name, { value }]) => [name, value] as const);
	return all.length > 0 ? Object.fromEntries(all) : undefined;
}

/** @throws FormatError unless a file has every whole number of the model, each in its range */
export function checkedWholes(path: string, model: Module, found: unknown): Wholes {
	const values = new Map(Object.entries((found ?? {}) as Record<string, unknown>));
	for (const [name, { below }] of model.wholes()) {
		const value = values.get(name);
		if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= below)
			throw new FormatError(path, `\`${name}\` is ${JSON.stringify(value) ?? 'nothing'}, expected an integer in [0, ${below})`);
	}
	return Object.fromEntries(values) as Wholes;
}

/** Overwrite a model's whole numbers with checked ones. */
export function setWholes(model: Module, values: Wholes | undefined): void {
	for (const [name, whole] of model.wholes()) whole.value = values![name]!;
}
