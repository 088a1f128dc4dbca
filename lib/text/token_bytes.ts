import type { Fields } from '../io/fields.js';
import { checkShort, steps } from './steps.js';

/** How the texts of tokens become bytes of the text. */
export interface Decoder {
	/** The bytes of a token. @param added it is none that merges made */
	readonly bytes: (text: string, added: boolean) => Uint8Array;
	/** Whether a space at the start of the text is taken away. */
	readonly spaceInFront: boolean;
}

/**
 * The characters that stand for bytes in a vocabulary of bytes (GPT-2, `bytes_to_unicode`): those that can be seen stand for themselves,
 * the others are the 68 from U+0100 on.
 */
const byteOf: ReadonlyMap<string, number> = (() => {
	const bytes = new Map<string, number>();
	let hidden = 0x100;
	for (let byte = 0; byte < 256; byte++) {
		const seen = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
		bytes.set(String.fromCharCode(seen ? byte : hidden++), byte);
	}
	return bytes;
})();

/** The characters that stand for bytes 0 to 255. */
export const byteCharacters: readonly string[] = [...byteOf].sort(([, a], [, b]) => a - b).map(([character]) => character);

/** `ByteLevel`. A text with characters that stand for no bytes is taken as it is. */
function byteLevel(text: string, added: boolean): Uint8Array {
	const bytes = Array.from(text, (character) => byteOf.get(character));
	return added || bytes.includes(undefined) ? Buffer.from(text) : Uint8Array.from(bytes as number[]);
}

/**
 * What the decoder of a tokenizer.json does to one token, and to the start of the text.
 * @throws FormatError its steps do something else, like what depends on the tokens around
 */
export function decoderOf(file: Fields): Decoder {
	const replacements: [string, string][] = []; // one at most in the end: several could make a text as long as they like
	let inBytes = false;
	let fallback = false;
	let fused = false;
	let spaceInFront = false;
	for (const step of steps(file, 'decoder', 'decoders')) {
		const type = step.text('type');
		if (type === 'ByteLevel') inBytes = true;
		else if (type === 'ByteFallback') fallback = true;
		else if (type === 'Fuse') fused = true;
		else if (type === 'Replace') {
			const pattern = step.object('pattern')?.text('String', { otherwise: '' });
			if (!pattern || fused) throw step.refuse('pattern', '{"String": …}, before Fuse');
			checkShort(step, 'content');
			replacements.push([pattern, step.text('content')]);
		} else if (type === 'Strip') {
			const [start, stop] = [step.integer('start', { least: 0, most: 1 }), step.integer('stop', { least: 0, most: 0 })];
			if (step.text('content') !== ' ' || !fused || stop !== 0) throw step.refuse('content', '" ", after Fuse');
			spaceInFront ||= start === 1;
		} else if (type === 'Metaspace') {
			replacements.push([step.text('replacement', { otherwise: '▁' }), ' ']);
			spaceInFront ||= step.text('prepend_scheme', { otherwise: 'always' }) !== 'never';
		} else throw step.refuse('type', 'ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, or a Sequence of them');
	}
	if (inBytes && (fallback || replacements.length > 0)) throw file.refuse('decoder', 'ByteLevel alone');
	if (!inBytes && replacements.length !== 1) throw file.refuse('decoder', 'ByteLevel, Metaspace, or a Sequence with one Replace');
	return {
		bytes(text, added) {
			if (inBytes) return byteLevel(text, added);
			const byte = fallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text) : null;
			if (byte) return Buffer.from(byte[1]!, 'hex');
			return Buffer.from(replacements.reduce((changed, [from, to]) => changed.replaceAll(from, () => to), text));
		},
		spaceInFront,
	};
}
