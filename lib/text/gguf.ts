import { FormatError } from '../errors.js';
import { Fields, shown } from '../io/fields.js';
import { ScoreBpe } from './bpe.js';
import { describedTokenizer } from './described.js';
import { byteLevelDescription } from './gguf_words.js';
import type { Tokenizer } from './tokenizer.js';
import { mostTokens, type Piece, VocabularyTokenizer } from './vocabulary.js';

/** Kinds of tokens, as GGUF numbers them (SentencePiece's). */
const kinds = { undefined: 0, normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The tokens of a GGUF. */
export interface GgufTokens {
	readonly texts: readonly string[];
	/** Like `kinds`, by token. */
	readonly kind: readonly number[];
}

/**
 * The tokenizer in a GGUF's metadata (keys `tokenizer.ggml.…`, `tokenizer.chat_template`): kind `llama` (SentencePiece's byte-pair
 * encoding by scores) or `gpt2` (merges of bytes).
 * @param path the GGUF, for messages
 * @param options.vocabulary V of the model. More tokens are refused. @default as many as there are tokens
 * @throws FormatError the metadata is not what it should be, or of a kind that oplus does not read
 */
export function ggufTokenizer(
	path: string,
	metadata: Readonly<Record<string, unknown>>,
	{ vocabulary = mostTokens }: { readonly vocabulary?: number | undefined } = {},
): Tokenizer {
	const file = new Fields(path, metadata);
	const model = file.text('tokenizer.ggml.model');
	if (model !== 'llama' && model !== 'gpt2') throw file.refuse('tokenizer.ggml.model', 'llama or gpt2');
	const tokens = tokensOf(file, vocabulary);
	const token = (name: string, otherwise: number | null): number | null => {
		const value = file.integer(`tokenizer.ggml.${name}`, { least: 0, most: 2 ** 32 - 1, otherwise });
		// 2³² − 1 is how files say that there is none; what they do not say holds where the vocabulary is that large.
		if (value === 2 ** 32 - 1 || (value === otherwise && !file.has(`tokenizer.ggml.${name}`) && (value ?? 0) >= tokens.texts.length))
			return null;
		if (value !== null && value >= tokens.texts.length) throw file.refuse(`tokenizer.ggml.${name}`, `a token below ${tokens.texts.length}`);
		return value;
	};
	const scored = model === 'llama';
	const bos = token('bos_token_id', scored ? 1 : null);
	const eos = token('eos_token_id', scored ? 2 : null);
	const ends = [eos, token('eot_token_id', null), token('eom_token_id', null)].filter((end) => end !== null);
	const addBos = file.boolean('tokenizer.ggml.add_bos_token', scored || file.value('tokenizer.ggml.pre') === 'llama-bpe');
	const settings = {
		size: vocabulary === mostTokens ? tokens.texts.length : vocabulary,
		bos,
		eos: [...new Set(ends)],
		chatTemplate: file.text('tokenizer.chat_template', { otherwise: null }),
		before: addBos && bos !== null ? [bos] : [],
		behind: file.boolean('tokenizer.ggml.add_eos_token', false) && eos !== null ? [eos] : [],
	};
	if (!scored) return describedTokenizer(byteLevelDescription(file, tokens), settings);
	const unknown = token('unknown_token_id', 0);
	const spaceInFront = file.boolean('tokenizer.ggml.add_space_prefix', true);
	return new VocabularyTokenizer({
		...settings,
		pieces: piecesOf(tokens),
		split: splitByScore(file, tokens, unknown, spaceInFront),
		spaceInFront,
	});
}

function tokensOf(file: Fields, most: number): GgufTokens {
	const texts = file.value('tokenizer.ggml.tokens');
	if (!Array.isArray(texts) || texts.length === 0) throw file.refuse('tokenizer.ggml.tokens', 'a list of texts');
	if (texts.length > most) throw new FormatError(file.path, `there are ${texts.length} tokens, expected at most ${most}`);
	const odd = texts.findIndex((text) => typeof text !== 'string');
	if (odd >= 0) throw new FormatError(file.path, `\`tokenizer.ggml.tokens[${odd}]\` is ${shown(texts[odd])}, expected a text`);
	const kind = numbers(
		file,
		'tokenizer.ggml.token_type',
		texts.length,
		'integers from 0 to 6',
		(n) => Number.isInteger(n) && n >= 0 && n <= 6,
	);
	return { texts: texts as string[], kind: kind ?? texts.map(() => kinds.normal) };
}

/** One number a token, null where the file has none. */
function numbers(file: Fields, name: string, length: number, expected: string, fits: (number: number) => boolean): number[] | null {
	const value = file.value(name);
	if (value === undefined) return null;
	const list = Array.isArray(value) || ArrayBuffer.isView(value) ? Array.from(value as ArrayLike<unknown>) : [];
	if (list.length !== length || !list.every((n) => typeof n === 'number' && fits(n))) {
		throw new FormatError(file.path, `\`${name}\` is ${shown(list.slice(0, 8))} …, expected ${length} ${expected}`);
	}
	return list as number[];
}

const silent: readonly number[] = [kinds.unknown, kinds.control];

function piecesOf({ texts, kind }: GgufTokens): Piece[] {
	return texts.map((name, token) => {
		const byte = kind[token] === kinds.byte ? byteOf(name) : null;
		const bytes = byte !== null ? Uint8Array.of(byte) : Buffer.from(kind[token] === kinds.userDefined ? name : name.replaceAll('▁', ' '));
		return { name, bytes, special: silent.includes(kind[token]!) };
	});
}

function byteOf(name: string): number | null {
	const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(name);
	return byte ? Number.parseInt(byte[1]!, 16) : null;
}

/** SentencePiece's encoding: special tokens that the text spells, and byte-pair encoding of what lies between them. */
function splitByScore(
	file: Fields,
	{ texts, kind }: GgufTokens,
	unknown: number | null,
	spaceInFront: boolean,
): (text: string) => readonly number[] {
	const scores = numbers(file, 'tokenizer.ggml.scores', texts.length, 'numbers', (n) => !Number.isNaN(n));
	const spelled = new Map<string, number>();
	const fallback: number[] = [];
	const mergeable = texts.map((text, token) => {
		const byte = kind[token] === kinds.byte ? byteOf(text) : null;
		if (byte !== null) fallback[byte] = token;
		const special = silent.includes(kind[token]!) || kind[token] === kinds.userDefined;
		if (special && text !== '' && !spelled.has(text)) spelled.set(text, token);
		return special || kind[token] === kinds.byte ? undefined : text;
	});
	const bpe = new ScoreBpe(mergeable, scores ?? texts.map(() => 0), false);
	const sections = sectionsOf(file, [...spelled.keys()]);
	return (text) => {
		const tokens: number[] = [];
		for (const section of sections(text)) {
			const special = spelled.get(section);
			if (special !== undefined) {
				tokens.push(special);
				continue;
			}
			const marked = `${spaceInFront ? '▁' : ''}${section.replaceAll(' ', '▁')}`;
			bpe.encode(marked, (token, start, end) => {
				if (token >= 0) tokens.push(token);
				else {
					const bytes = Array.from(Buffer.from(marked.slice(start, end)), (byte) => fallback[byte]);
					if (!bytes.includes(undefined)) tokens.push(...(bytes as number[]));
					else if (unknown !== null) tokens.push(unknown);
				}
			});
		}
		return tokens;
	};
}

/** Cuts a text where it spells one of these, the longest where several begin. */
function sectionsOf(file: Fields, spelled: readonly string[]): (text: string) => string[] {
	if (spelled.length === 0) return (text) => (text === '' ? [] : [text]);
	const longestFirst = [...spelled].sort((a, b) => b.length - a.length);
	try {
		const pattern = new RegExp(`(${longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|')})`, 'u');
		''.split(pattern); // compiles it
		return (text) => text.split(pattern).filter((section) => section !== '');
	} catch (error) {
		throw new FormatError(file.path, `${spelled.length} special tokens are more than can be looked for at once, expected fewer`, {
			cause: error,
		});
	}
}
