import { FormatError } from '../errors.js';
import { exists } from '../io/files.js';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.js';
import type { Module } from '../layers/module.js';
import type { Tensor } from '../tensor.js';
import type { AdamW } from './adamw.js';
import { readParameters, stored } from './weights.js';

export interface Checkpoint {
	/** A safetensors file: parameters, moments of the optimiser, position. Written atomically. */
	readonly path: string;
	/** Steps between two writings; the last step is always written. */
	readonly every: number;
}

/** What must be the same for a training to be the same. */
export interface Run {
	readonly seed: number;
	readonly steps: number;
	readonly batch: number;
}

export async function saveCheckpoint({ path }: Checkpoint, model: Module, optimizer: AdamW, run: Run): Promise<void> {
	const tensors = new Map<string, Tensor>();
	for (const [name, parameter] of model.parameters()) tensors.set(`p.${name}`, parameter);
	for (const [name, moment] of optimizer.state()) tensors.set(name, moment);
	await writeSafetensors(path, await stored(tensors), { 'oplus.checkpoint': JSON.stringify({ ...run, step: optimizer.steps }) });
}

/**
 * Go on from a checkpoint, if there is one.
 * @returns steps already taken
 * @throws FormatError if the file is no checkpoint, or one of another training
 */
export async function loadCheckpoint({ path }: Checkpoint, model: Module, optimizer: AdamW, run: Run): Promise<number> {
	if (!(await exists(path))) return 0;
	await using file = await SafetensorsFile.open(path);
	const text = file.metadata['oplus.checkpoint'];
	if (text === undefined) throw new FormatError(path, 'the file is no checkpoint of a training');
	const found = JSON.parse(text) as Run & { step: number };
	for (const name of ['seed', 'steps', 'batch'] as const) {
		if (found[name] !== run[name])
			throw new FormatError(path, `the checkpoint is of another training: ${name} is ${found[name]}, expected ${run[name]}`);
	}
	await readParameters(file, model, 'p.');
	await optimizer.restore(found.step, (name) => file.floats(name));
	return found.step;
}
