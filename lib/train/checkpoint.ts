import { FormatError } from '../errors.js';
import { exists } from '../io/files.js';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.js';
import type { Module } from '../layers/module.js';
import type { Tensor } from '../tensor.js';
import type { AdamW } from './adamw.js';
import { checkedWholes, readParameters, setWholes, stored, type Wholes, wholesOf } from './weights.js';

export interface Checkpoint {
	/** A safetensors file: parameters, moments of the optimiser, position. Written atomically. */
	readonly path: string;
	/** Steps between two writings; the last step is always written, and the one at which the training is aborted. */
	readonly every: number;
	/** What else makes the training what it is, as JSON: a checkpoint with other settings is refused. */
	readonly settings?: Readonly<Record<string, unknown>>;
	/** What the caller keeps from epoch to epoch is written and read along. */
	readonly keeper?: Keeper;
	/** Called when there is a checkpoint to go on from. */
	readonly onResume?: (step: number, steps: number) => void;
}

/** What a training keeps beside its model and optimiser. */
export interface Kept {
	/** JSON. */
	readonly note: unknown;
	readonly numbers: ReadonlyMap<string, Float32Array>;
}

export interface Keeper {
	save(): Kept;
	/** @param path of the checkpoint, for the error if it holds something else */
	restore(kept: Kept, path: string): void;
}

/** What must be the same for a training to be the same. */
export interface Run {
	readonly seed: number;
	readonly steps: number;
	readonly batch: number;
}

/** What a checkpoint says of itself. */
interface Header extends Run {
	readonly step: number;
	readonly settings?: Readonly<Record<string, unknown>>;
	readonly note?: unknown;
	readonly wholes?: Wholes;
}

const key = 'oplus.checkpoint';

export async function saveCheckpoint(checkpoint: Checkpoint, model: Module, optimizer: AdamW, run: Run): Promise<void> {
	const { path, settings, keeper } = checkpoint;
	const tensors = new Map<string, Tensor>();
	for (const [name, parameter] of model.parameters()) tensors.set(`p.${name}`, parameter);
	for (const [name, moment] of optimizer.state()) tensors.set(name, moment);
	const all = await stored(tensors);
	const kept = keeper?.save();
	for (const [name, { buffer, byteOffset, byteLength, length }] of kept?.numbers ?? [])
		all.set(`k.${name}`, { dtype: 'F32', shape: [length], data: new Uint8Array(buffer, byteOffset, byteLength) });
	const wholes = wholesOf(model);
	const about = { ...(settings && { settings }), ...(kept && { note: kept.note }), ...(wholes && { wholes }) };
	const header: Header = { ...run, step: optimizer.steps, ...about };
	await writeSafetensors(path, all, { [key]: JSON.stringify(header) });
}

/**
 * Go on from a checkpoint, if there is one.
 * @returns steps already taken
 * @throws FormatError if the file is no checkpoint, or one of another training
 */
export async function loadCheckpoint(checkpoint: Checkpoint, model: Module, optimizer: AdamW, run: Run): Promise<number> {
	const { path, settings = {}, keeper, onResume } = checkpoint;
	if (!(await exists(path))) return 0;
	await using file = await SafetensorsFile.open(path);
	const found = headerOf(file);
	expectSame(path, found.settings ?? {}, settings);
	const same = ({ seed, batch, steps }: Run) => ({ seed, batch, steps });
	expectSame(path, same(found), same(run));
	const { step, note } = found;
	if (!Number.isInteger(step) || step < 0 || step > run.steps)
		throw new FormatError(
			path,
			`the checkpoint's \`step\` is ${JSON.stringify(step) ?? 'nothing'}, expected an integer in [0, ${run.steps}]`,
		);
	if (keeper && note === undefined) throw new FormatError(path, "the checkpoint's `note` is nothing, expected what the caller keeps");
	const wholes = checkedWholes(path, model, found.wholes);
	await readParameters(file, model, 'p.');
	setWholes(model, wholes);
	await optimizer.restore(step, (name) => file.floats(name));
	if (keeper) {
		const names = file.names.filter((name) => name.startsWith('k.'));
		const numbers = await Promise.all(names.map(async (name) => [name.slice(2), await file.floats(name)] as const));
		keeper.restore({ note, numbers: new Map(numbers) }, path);
	}
	onResume?.(step, run.steps);
	return step;
}

function headerOf({ path, metadata }: SafetensorsFile): Header {
	const text = metadata[key];
	if (text === undefined) throw new FormatError(path, 'the file is no checkpoint of a training');
	let header: unknown;
	try {
		header = JSON.parse(text);
	} catch (cause) {
		throw new FormatError(path, `\`${key}\` is no JSON: ${(cause as Error).message}`, { cause });
	}
	if (typeof header !== 'object' || header === null || Array.isArray(header))
		throw new FormatError(path, `\`${key}\` is ${text.slice(0, 40)}, expected a JSON object`);
	return header as Header;
}

function expectSame(path: string, found: Readonly<Record<string, unknown>>, expected: Readonly<Record<string, unknown>>): void {
	const json = (value: unknown) => JSON.stringify(value) ?? 'nothing';
	const short = (value: unknown) => (typeof value === 'string' ? value : json(value));
	for (const name of new Set([...Object.keys(expected), ...Object.keys(found)])) {
		const values = [found[name], expected[name]] as const;
		if (json(values[0]) === json(values[1])) continue;
		// Without the quotes, unless they are the difference.
		const [was, is] = values.map(short(values[0]) === short(values[1]) ? json : short);
		throw new FormatError(path, `the checkpoint is of another training: ${name} is ${was}, expected ${is}`);
	}
}
