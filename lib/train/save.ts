import fs from 'node:fs/promises';
import path from 'node:path';
import type { DeviceName } from '../device.js';
import { ArgumentError, FormatError } from '../errors.js';
import { writeAtomic } from '../io/files.js';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.js';
import type { Module } from '../layers/module.js';
import { checkedWholes, readParameters, setWholes, stored, wholesOf } from './weights.js';

/** A model that can be built again from what it was built from. */
export type Saveable = Module & {
	/** The name that its kind is registered by. */
	readonly kind: string;
	/** What its constructor takes: plain JSON. */
	readonly config: object;
};

/** Builds a model of one kind from its config. @throws ArgumentError if the config is not one */
export type Build = (config: never, options: { readonly device?: DeviceName }) => Saveable;

const kinds = new Map<string, Build>();

/** Make a kind of model known to `loadModel`. A model's own file calls this. */
export function registerModel(kind: string, build: Build): void {
	kinds.set(kind, build);
}

/**
 * Write a model to a folder: `config.json` and `model.safetensors`, each written atomically. The weights' file carries a copy
 * of the config, which is the one that `loadModel` takes: a crash between the two files cannot mix two models.
 */
export async function saveModel(model: Saveable, dir: string): Promise<void> {
	const config = JSON.stringify({ kind: model.kind, ...model.config }, null, '\t');
	const wholes = wholesOf(model);
	const metadata = { format: 'pt', 'oplus.config': config, ...(wholes && { 'oplus.wholes': JSON.stringify(wholes) }) };
	await writeSafetensors(path.join(dir, 'model.safetensors'), await stored(model.parameters()), metadata);
	await writeAtomic(path.join(dir, 'config.json'), `${config}\n`);
}

/**
 * A model from the folder that `saveModel` wrote, or from a config.json and a model.safetensors of the same names and shapes.
 * @throws FormatError if the files are not what they should be
 */
export async function loadModel(dir: string, options: { readonly device?: DeviceName } = {}): Promise<Saveable> {
	await using file = await SafetensorsFile.open(path.join(dir, 'model.safetensors'));
	const own = file.metadata['oplus.config'];
	const place = own === undefined ? path.join(dir, 'config.json') : file.path;
	const { kind, ...config } = parsed(place, own ?? (await fs.readFile(place, 'utf8')));
	const build = kinds.get(kind as string);
	if (!build) throw new FormatError(place, `\`kind\` is ${JSON.stringify(kind)}, expected one of ${[...kinds.keys()].join(', ')}`);
	const model = built(place, () => build(config as never, options));
	try {
		await readParameters(file, model);
		const wholes = file.metadata['oplus.wholes'];
		if (wholes !== undefined) setWholes(model, checkedWholes(file.path, model, parsed(file.path, wholes, '`oplus.wholes`')));
		return model;
	} catch (error) {
		model.dispose();
		throw error;
	}
}

function parsed(place: string, text: string, what = 'the config'): Record<string, unknown> {
	try {
		const value: unknown = JSON.parse(text);
		if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
	} catch (cause) {
		throw new FormatError(place, `${what} is no JSON: ${(cause as Error).message}`, { cause });
	}
	throw new FormatError(place, `${what} is no JSON object`);
}

function built(place: string, build: () => Saveable): Saveable {
	try {
		return build();
	} catch (cause) {
		if (!(cause instanceof ArgumentError)) throw cause;
		throw new FormatError(place, `the config does not describe a model: ${cause.message}`, { cause });
	}
}
