import path from 'node:path';
import type { DeviceName } from '../device.js';
import { ArgumentError, FormatError } from '../errors.js';
import { readJson } from '../io/fields.js';
import { writeAtomic } from '../io/files.js';
import { fit, type Progress } from '../train/fit.js';
import { loadModel, saveModel } from '../train/save.js';
import { Performer } from './performer.js';
import type { PerformerConfig } from './performer_config.js';
import { type ProteinMode, type ProteinSet, ProteinWindows } from './protein_data.js';
import { proteinTokens } from './protein_tokens.js';

/** What is known of a model of proteins beside its weights. */
export interface ProteinAbout {
	/** Tokens of a window that it was trained on. */
	readonly length: number;
	/** How often each of `proteinTokens.letters` is in what it was trained on. */
	readonly counts: Float64Array;
}

/** The file beside the model's own. */
const aboutFile = 'protein.json';

/** A model of the vocabulary of `proteinTokens`. Masked models are not causal. */
export function proteinModel(
	mode: ProteinMode,
	config: Omit<PerformerConfig, 'vocabulary' | 'mask' | 'causal'>,
	options: { readonly device?: DeviceName } = {},
): Performer {
	const { size: vocabulary, mask } = proteinTokens;
	return new Performer({ dropout: 0, ...config, vocabulary, causal: mode === 'causal', ...(mode === 'masked' && { mask }) }, options);
}

/** What a model was trained to predict. */
export function modeOf(model: Performer): ProteinMode {
	return model.config.causal ? 'causal' : 'masked';
}

export interface ProteinTraining {
	/** Tokens of a window. @default 256 */
	readonly length?: number;
	/** Windows a step. @default 16 */
	readonly batch?: number;
	/** @default 1500 */
	readonly steps?: number;
	/** Learning rate at its highest; it rises over 5 % of the steps and falls with a cosine. @default 1e-3 */
	readonly rate?: number;
	/** Of the windows, and of what is hidden. @default 0 */
	readonly seed?: number;
	/** Steps between two reports. @default 10 */
	readonly every?: number;
	readonly signal?: AbortSignal | undefined;
}

/**
 * Train a model on windows of a set, as `fit` does. Weight decay 0.1 and gradients clipped at 0.5 are the Performer paper's; windows
 * begin anywhere, and none comes twice.
 * @throws ArgumentError the set is smaller than a window; as `fit`
 */
export function trainProtein(model: Performer, set: ProteinSet, options: ProteinTraining = {}): AsyncGenerator<Progress, void> {
	const { length = 256, batch = 16, steps = 1500, rate = 1e-3, seed = 0, every = 10, signal } = options;
	if (!Number.isInteger(steps) || steps < 1) throw new ArgumentError(`trainProtein: steps is ${steps}, expected an integer from 1`);
	if (!Number.isInteger(batch) || batch < 1) throw new ArgumentError(`trainProtein: batch is ${batch}, expected an integer from 1`);
	const windows = new ProteinWindows(set, { mode: modeOf(model), length, drawn: steps * batch, seed });
	const warmup = Math.ceil(steps / 20);
	return fit(model, windows, { epochs: 1, batch, rate, schedule: 'cosine', warmup, clip: 0.5, decay: 0.1, seed, every, signal });
}

/** Write a model and what is known of it to a folder. */
export async function saveProtein(model: Performer, { length, counts }: ProteinAbout, dir: string): Promise<void> {
	await saveModel(model, dir);
	const letters = Object.fromEntries([...proteinTokens.letters].map((letter, id) => [letter, counts[id]]));
	await writeAtomic(path.join(dir, aboutFile), `${JSON.stringify({ length, counts: letters }, null, '\t')}\n`);
}

/**
 * A model of proteins from the folder that `saveProtein` wrote.
 * @throws FormatError the files are not what they should be, or hold another kind of model
 */
export async function loadProtein(
	dir: string,
	options: { readonly device?: DeviceName } = {},
): Promise<{ readonly model: Performer; readonly about: ProteinAbout }> {
	const place = path.join(dir, aboutFile);
	const fields = await readJson(place);
	const length = fields.integer('length', { least: 4 });
	const letters = fields.object('counts');
	if (!letters) throw fields.refuse('counts', 'a number for each residue');
	const counts = Float64Array.from(proteinTokens.letters, (letter) => letters.integer(letter, { least: 0 }));
	const model = await loadModel(dir, options);
	if (model instanceof Performer && model.config.vocabulary === proteinTokens.size) return { model, about: { length, counts } };
	model.dispose();
	throw new FormatError(dir, `the model is no Performer of ${proteinTokens.size} tokens, expected one that \`oplus protein\` has trained`);
}
