import { createRequire } from 'node:module';
import { ArgumentError, FormatError } from '../errors.js';
import { Borders } from './borders.js';
import { bounded, TimeUp } from './bounded.js';
import type { Description } from './description.js';
import type { Tokenizer } from './tokenizer.js';
import { type Piece, VocabularyTokenizer } from './vocabulary.js';

/** Splits a text into words. */
type Words = (text: string, options: { readonly section_index?: number }) => string[];

/** What is used of the library: its types are those of an ES module, which cannot be imported from here. */
interface Library {
	pre_tokenizer: Words | null;
	/** Of words, and the texts of their tokens. */
	readonly model: { cache: { get(word: string): string[] | undefined; put(word: string, tokens: string[]): void } };
	encode(text: string, options: { readonly add_special_tokens: boolean }): { readonly ids: readonly number[] };
}

const load = createRequire(__filename);

/** What the files beside the description say. */
export interface Settings {
	/** V of the model, which may be more than there are tokens. @default as many as the description needs */
	readonly size?: number | undefined;
	readonly bos: number | null;
	readonly eos: readonly number[];
	readonly chatTemplate: string | null;
	/** @default what the description says */
	readonly before?: readonly number[];
	readonly behind?: readonly number[];
}

/** A word that the library keeps in its cache is encoded whole; longer ones in pieces, which it finds there. */
const longWord = 256;

/**
 * The tokenizer that a description describes; its words and merges are the library's work. A pattern of the file that takes endless time
 * on a text is stopped after 5 s + 0.2 ms a character.
 * @throws FormatError the library does not take the description
 */
export function describedTokenizer(description: Description, settings: Settings): Tokenizer {
	const { path, added, decoder } = description;
	const pieces: (Piece | undefined)[] = [];
	for (const [name, id] of description.vocabulary) pieces[id] = { name, bytes: decoder.bytes(name, false), special: false };
	for (const { id, content, special } of added) pieces[id] = { name: content, bytes: decoder.bytes(content, true), special };
	const encode = encoderOf(description);
	try {
		encode('A b\u00e9\u20ac\u{1f600}\r\n 12'); // what the library stumbles over comes out here
	} catch (error) {
		throw new FormatError(path, `no text can be encoded: ${(error as Error).message}`, { cause: error });
	}
	return new VocabularyTokenizer({
		size: Math.max(settings.size ?? 0, pieces.length),
		pieces,
		split: encode,
		before: settings.before ?? description.before,
		behind: settings.behind ?? description.behind,
		bos: settings.bos,
		eos: settings.eos,
		spaceInFront: decoder.spaceInFront,
		chatTemplate: settings.chatTemplate,
	});
}

function encoderOf(description: Description): (text: string) => readonly number[] {
	const library = libraryOf(description);
	library.model.cache = wordCache();
	if (!description.ignoreMerges) encodePiecewise(library, description.merges); // a piece that is a token need not be one by merges
	return (text) => {
		const milliseconds = 5_000 + Math.ceil(text.length / 5);
		try {
			return text === '' ? [] : bounded(milliseconds, () => library.encode(text, { add_special_tokens: false }).ids);
		} catch (error) {
			if (!(error instanceof TimeUp)) throw error;
			throw new ArgumentError(
				`encode: ${description.path} describes patterns that take more than ${milliseconds} ms on this text of ${text.length} characters`,
				{ cause: error },
			);
		}
	};
}

function libraryOf(description: Description): Library {
	const { Tokenizer: Make }: { Tokenizer: new (json: object, config: object) => Library } = load('@huggingface/tokenizers');
	const model = {
		type: 'BPE',
		vocab: Object.fromEntries(description.vocabulary),
		merges: description.merges,
		unk_token: description.unknown,
		fuse_unk: description.fuseUnknown,
		byte_fallback: description.byteFallback,
		ignore_merges: description.ignoreMerges,
	};
	try {
		return new Make(
			{
				model,
				added_tokens: description.added,
				normalizer: description.normalizer,
				pre_tokenizer: description.preTokenizer,
				post_processor: null, // tokens around a text are put there by VocabularyTokenizer
				decoder: null, // tokens are decoded by their bytes, so that a stream of them gives the same text
			},
			{},
		);
	} catch (error) {
		throw new FormatError(description.path, `this describes no tokenizer: ${(error as Error).message}`, { cause: error });
	}
}

function encodePiecewise(library: Library, merges: Description['merges']): void {
	const words = library.pre_tokenizer;
	let borders: Borders | undefined;
	library.pre_tokenizer = (text, options) =>
		(words ? words(text, options) : [text]).flatMap((word) => {
			if (word.length < longWord) return [word];
			borders ??= new Borders(merges.map(([left, right]) => left + right));
			return borders.split(word);
		});
}

const mostWords = 10_000;

/**
 * In place of the library's cache, which moves a word to the end of a `Map` each time it is found: a word that comes often took 40 µs
 * each time. This one forgets all when it is full.
 */
function wordCache(): Library['model']['cache'] {
	const words = new Map<string, string[]>();
	return {
		get: (word) => words.get(word),
		put(word, tokens) {
			if (words.size >= mostWords) words.clear();
			words.set(word, tokens);
		},
	};
}
