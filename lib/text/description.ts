import { FormatError } from '../errors.js';
import { Fields, isObject, shown } from '../io/fields.js';
import { type AddedToken, addedTokensOf, normalizerOf, preTokenizerOf, templateOf } from './steps.js';
import { type Decoder, decoderOf } from './token_bytes.js';
import { mostTokens } from './vocabulary.js';

/** What a tokenizer.json says, checked: nothing refers to nothing, and every step is one that oplus takes as the original does. */
export interface Description {
	readonly path: string;
	/** The token of every text in the vocabulary of merges. */
	readonly vocabulary: ReadonlyMap<string, number>;
	readonly merges: readonly (readonly [string, string])[];
	readonly added: readonly AddedToken[];
	/** As the file has them, for the library. */
	readonly normalizer: unknown;
	readonly preTokenizer: unknown;
	/** Tokens put around a text. */
	readonly before: readonly number[];
	readonly behind: readonly number[];
	readonly decoder: Decoder;
	readonly unknown: string | null;
	readonly fuseUnknown: boolean;
	readonly byteFallback: boolean;
	/** Take a whole word that is in the vocabulary, whether merges lead to it or not. */
	readonly ignoreMerges: boolean;
}

/**
 * Checks a tokenizer.json.
 * @param vocabulary V of the model: no token may be V or more. @default any number of tokens
 * @throws FormatError
 */
export function describe(path: string, json: Readonly<Record<string, unknown>>, vocabulary = mostTokens): Description {
	const file = new Fields(path, json);
	const model = file.object('model');
	if (!model) throw file.refuse('model', 'an object');
	const type = model.text('type', { otherwise: 'BPE' });
	if (type !== 'BPE') throw model.refuse('type', '"BPE", the kind that oplus reads');
	for (const name of ['continuing_subword_prefix', 'end_of_word_suffix']) {
		if (model.text(name, { otherwise: '' }) !== '') throw model.refuse(name, 'null or ""');
	}
	const tokens = vocabularyOf(model, vocabulary);
	const added = addedTokensOf(file, tokens, vocabulary);
	const unknown = model.text('unk_token', { otherwise: null });
	if (unknown !== null && !tokens.has(unknown) && !added.some(({ content }) => content === unknown)) {
		throw model.refuse('unk_token', 'a token of the vocabulary');
	}
	const known = new Set([...tokens.values(), ...added.map(({ id }) => id)]);
	return {
		path,
		vocabulary: tokens,
		merges: mergesOf(model, tokens),
		added,
		normalizer: normalizerOf(file),
		preTokenizer: preTokenizerOf(file),
		...templateOf(file, known),
		decoder: decoderOf(file),
		unknown,
		fuseUnknown: model.boolean('fuse_unk', false),
		byteFallback: model.boolean('byte_fallback', false),
		ignoreMerges: model.boolean('ignore_merges', false),
	};
}

function vocabularyOf(model: Fields, most: number): Map<string, number> {
	const vocabulary = model.value('vocab');
	if (!isObject(vocabulary)) throw model.refuse('vocab', 'an object of tokens by text');
	const tokens = new Map<string, number>();
	const taken = new Map<number, string>();
	for (const [text, token] of Object.entries(vocabulary)) {
		const refuse = (message: string) => new FormatError(model.path, `\`model.vocab\`: ${shown(text)} is ${message}`);
		if (!Number.isInteger(token) || (token as number) < 0 || (token as number) >= most) {
			throw refuse(`${shown(token)}, expected an integer from 0 to ${most - 1}`);
		}
		const other = taken.get(token as number);
		if (other !== undefined) throw refuse(`${token}, expected a number that is not ${shown(other)} already`);
		taken.set(token as number, text);
		tokens.set(text, token as number);
	}
	return tokens;
}

/** Pairs as `["a", "b"]` or as `"a b"`, in the order in which they are joined. */
function mergesOf(model: Fields, tokens: ReadonlyMap<string, number>): [string, string][] {
	const merges = model.value('merges');
	if (!Array.isArray(merges)) throw model.refuse('merges', 'a list of pairs');
	return merges.map((merge: unknown, i): [string, string] => {
		const pair = typeof merge === 'string' ? merge.split(' ') : merge;
		const refuse = (expected: string) => new FormatError(model.path, `\`model.merges[${i}]\` is ${shown(merge)}, expected ${expected}`);
		if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((text) => typeof text === 'string' && text !== '')) {
			throw refuse('two texts');
		}
		for (const text of [...pair, pair.join('')]) if (!tokens.has(text)) throw refuse(`${shown(text)} to be in the vocabulary`);
		return pair as [string, string];
	});
}
