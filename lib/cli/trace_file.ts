import fs from 'node:fs/promises';
import { ArgumentError } from '../errors.js';
import { exists, writeAtomic } from '../io/files.js';
import type { Llama } from '../models/llama.js';
import type { Trace } from '../models/trace.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { Utf8Stream } from '../text/utf8.js';
import type { DecoderOptions } from './decoder_options.js';
import { type PageToken, tracePage } from './trace_page.js';

/** @throws ArgumentError no file can be written here */
export async function checkPlace(file: string): Promise<void> {
	if ((await exists(file)) && (await fs.stat(file)).isDirectory()) throw new ArgumentError(`--trace: ${file} is a folder, expected a file`);
}

/** A run with what was seen of it. */
export interface Traced {
	readonly model: Llama;
	readonly trace: Trace;
	readonly options: DecoderOptions;
	/** All tokens, the prompt's first; what is behind the trace's last step was never fed. */
	readonly ids: readonly number[];
	/** How many of them are the prompt. */
	readonly prompt: number;
}

/** Write the page. */
export async function writeTrace(file: string, { model, trace, options, ids, prompt }: Traced): Promise<void> {
	const { cache, states, positions } = options;
	const { layers, kvHeads } = model.config;
	const page = tracePage({
		title: states === undefined ? `What ${cache.name} keeps` : `What ${cache.name} keeps in ${states} states`,
		facts: [
			['model', model.path],
			['policy', cache.name],
			['states a layer', states === undefined ? 'all' : `${states}`],
			['positions', positions],
			['layers', `${layers}`],
			['key-value heads', `${kvHeads}`],
			['tokens of the prompt', `${prompt}`],
			['tokens generated', `${ids.length - prompt}`],
		],
		tokens: pageTokens(model.tokenizer, ids),
		prompt,
		held: trace.held(),
	});
	await writeAtomic(file, page);
}

/** How tokens are written on the page, and what kind of text they are. */
export function pageTokens(tokenizer: Tokenizer, ids: readonly number[]): PageToken[] {
	const characters = new Utf8Stream();
	let first = true;
	let before = ' ';
	return ids.map((id) => {
		// A model may have more tokens than its tokenizer, to fill up a matrix.
		if (id >= tokenizer.size || tokenizer.isSpecial(id)) {
			const name = (id < tokenizer.size && tokenizer.name(id).trim()) || `<${id}>`;
			before = ' ';
			return { text: '', label: name, kind: 'special' };
		}
		const bytes = tokenizer.bytes(id, first);
		first = false;
		const text = characters.push(bytes);
		const own = Buffer.from(bytes).toString('utf8');
		// The bytes of a character may be spread over tokens: the last of them shows it.
		if (own !== text || own.includes('\ufffd')) {
			before = text || before;
			return { text, label: hexadecimal(bytes), kind: 'part of a character' };
		}
		const kind = kindOf(own, before);
		before = own || before;
		return { text, label: own, kind };
	});
}

/** By its first character that is no space; in the middle of a word if letters stand on both sides of its beginning. */
function kindOf(text: string, before: string): PageToken['kind'] {
	const solid = text.trimStart();
	if (solid === '') return text.includes('\n') ? 'line break' : 'space';
	if (/^\p{N}/u.test(solid)) return 'number';
	if (!/^[\p{L}\p{M}]/u.test(solid)) return 'punctuation';
	return solid === text && /[\p{L}\p{M}]$/u.test(before) ? 'rest of a word' : 'word';
}

function hexadecimal(bytes: Uint8Array): string {
	return Array.from(bytes, (byte) => `<${byte.toString(16).toUpperCase().padStart(2, '0')}>`).join('');
}
