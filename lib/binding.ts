import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { Binding } from '../binding.js';
import { DeviceError, nativeErrors } from './errors.js';

const load = createRequire(__filename);

/** The folder of package.json: the parent of lib/ (sources) or of dist/ (as built). */
const root = path.dirname(__dirname);

/** Every file that could be the addon, in the order in which they are tried. */
function candidates(): string[] {
	const folders = [
		path.join(root, 'build', 'Release'),
		path.join(root, 'build', 'Debug'),
		path.join(root, 'prebuilds', `${process.platform}-${process.arch}`),
	];
	return folders.flatMap((folder) => {
		try {
			const files = fs.readdirSync(folder).filter((name) => name.endsWith('.node'));
			return files.length > 0 ? files.map((name) => path.join(folder, name)) : [path.join(folder, '*.node')];
		} catch {
			return [path.join(folder, '*.node')]; // not there: reported as such below
		}
	});
}

/** Why the addon did not load: every path tried, the reason, and what to do. */
function explain(cause: unknown): DeviceError {
	const tried = candidates().map((file) => {
		if (file.endsWith('*.node')) return `  ${file}: no such file`;
		try {
			load(file);
			return `  ${file}: loads by itself, but node-gyp-build did not choose it`;
		} catch (error) {
			return `  ${file}: ${(error as Error).message.split('\n')[0]}`;
		}
	});
	return new DeviceError(
		[
			`oplus: the native addon does not load on ${process.platform}-${process.arch}, Node ${process.versions.node}. Tried:`,
			...tried,
			'What to do: run `npm rebuild oplus --build-from-source` (needs CMake, a C++20 compiler and make or ninja);',
			'where npm blocks install scripts, `npm install-scripts approve oplus` first.',
		].join('\n'),
		{ cause },
	);
}

function open(): Binding {
	let loaded: Binding;
	try {
		loaded = load('node-gyp-build')(root);
	} catch (error) {
		throw explain(error);
	}
	loaded.errors(nativeErrors);
	return { ...loaded }; // the module's exports are a dictionary to V8; a copy is an object whose functions are found at once
}

/** The addon: see binding.d.ts. */
export const binding: Binding = open();
