import { FormatError } from '../errors.js';
import { Fields, isObject, shown } from '../io/fields.js';

/** A token beside those that merges make: it is looked for in the text first. */
export interface AddedToken {
	readonly id: number;
	readonly content: string;
	readonly special: boolean;
	/** Take the spaces before or behind it too. */
	readonly lstrip: boolean;
	readonly rstrip: boolean;
	/** Look for it after the text was normalised, its own text normalised too. */
	readonly normalized: boolean;
}

/** How a step may be written and nested, more than any published file needs: the work that a file can ask for stays small. */
const longestPattern = 16_384;
const longestReplacement = 16;
const mostSteps = 16;
const mostAddedText = 2 ** 20;

/** GPT-2's words (Radford et al. 2019), which `ByteLevel` splits a text into. */
export const gpt2Words = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** A step that makes every match of a pattern a word of its own, and what lies between too. */
export const isolate = (pattern: string) => ({ type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false });

/** The list under `name`, every element of it an object. */
function list(file: Fields, name: string, most: number): Fields[] {
	const elements = file.value(name) ?? [];
	if (!Array.isArray(elements)) throw file.refuse(name, 'a list');
	if (elements.length > most) throw new FormatError(file.path, `\`${name}\` has ${elements.length} elements, expected at most ${most}`);
	return elements.map((element: unknown, i) => {
		if (!isObject(element)) throw new FormatError(file.path, `\`${name}[${i}]\` is ${shown(element)}, expected an object`);
		return new Fields(file.path, element, `${name}[${i}].`);
	});
}

/** A step by itself, or the steps of a `Sequence`. null: none. */
export function steps(file: Fields, name: string, inside: string): Fields[] {
	const step = file.object(name);
	if (!step) return [];
	if (step.value('type') !== 'Sequence') return [step];
	return list(step, inside, mostSteps);
}

export function addedTokensOf(file: Fields, vocabulary: ReadonlyMap<string, number>, most: number): AddedToken[] {
	const texts = new Map<number, string>([...vocabulary].map(([text, token]) => [token, text]));
	const ids = new Map(vocabulary);
	let length = 0;
	return list(file, 'added_tokens', most).map((token) => {
		const content = token.text('content');
		const id = token.integer('id', { least: 0, most: most - 1 });
		if (content === '') throw token.refuse('content', 'a text');
		if ((length += content.length) > mostAddedText) {
			throw new FormatError(file.path, `\`added_tokens\` take more than ${mostAddedText} characters, expected fewer`);
		}
		if ((ids.get(content) ?? id) !== id) throw token.refuse('id', `${ids.get(content)}, which is ${shown(content)} already`);
		if ((texts.get(id) ?? content) !== content) throw token.refuse('content', `${shown(texts.get(id))}, which is ${id} already`);
		ids.set(content, id);
		texts.set(id, content);
		// Hugging Face's single_word is read by no library in JavaScript, and no published decoder has it.
		if (token.boolean('single_word', false)) throw token.refuse('single_word', 'false');
		const special = token.boolean('special', false);
		return {
			id,
			content,
			special,
			lstrip: token.boolean('lstrip', false),
			rstrip: token.boolean('rstrip', false),
			normalized: token.boolean('normalized', !special),
		};
	});
}

/** The text or regular expression that a step looks for. */
function checkPattern(step: Fields): void {
	const pattern = step.object('pattern');
	if (!pattern) throw step.refuse('pattern', '{"String": …} or {"Regex": …}');
	const text = pattern.has('Regex') ? pattern.text('Regex') : pattern.text('String');
	if (text === '' || text.length > longestPattern) throw step.refuse('pattern', `1 to ${longestPattern} characters`);
}

export function checkShort(step: Fields, name: string): void {
	if (step.text(name, { otherwise: '' }).length > longestReplacement) throw step.refuse(name, `at most ${longestReplacement} characters`);
}

export function normalizerOf(file: Fields): unknown {
	for (const step of steps(file, 'normalizer', 'normalizers')) {
		const type = step.text('type');
		if (type === 'Prepend') checkShort(step, 'prepend');
		else if (type === 'Replace') {
			checkPattern(step);
			checkShort(step, 'content');
		} else if (!['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase'].includes(type)) {
			throw step.refuse('type', 'Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, or a Sequence of them');
		}
	}
	return file.value('normalizer') ?? null;
}

/** Steps whose meaning the library changes are put in words that it takes as the original does; others are refused by name. */
export function preTokenizerOf(file: Fields): unknown {
	const all = steps(file, 'pre_tokenizer', 'pretokenizers').flatMap((step): object[] => {
		const type = step.text('type');
		if (type === 'Split') {
			checkPattern(step);
			const behavior = step.text('behavior');
			const invert = step.boolean('invert', false);
			if (behavior !== 'Removed' && (behavior !== 'Isolated' || invert)) throw step.refuse('behavior', 'Isolated or Removed');
			return [{ type, pattern: step.value('pattern'), behavior, invert }];
		}
		if (type === 'ByteLevel') {
			if (step.boolean('add_prefix_space', true)) throw step.refuse('add_prefix_space', 'false');
			// Its own pattern takes white space as JavaScript does, not as Unicode does.
			return [...(step.boolean('use_regex', true) ? [isolate(gpt2Words)] : []), { type, add_prefix_space: false, use_regex: false }];
		}
		if (type === 'Digits') return [isolate(step.boolean('individual_digits', false) ? '\\p{N}' : '\\p{N}+')]; // not 0 to 9 alone
		if (type === 'Metaspace') {
			if (step.boolean('split', true)) throw step.refuse('split', 'false: oplus does not split words at spaces here');
			const scheme = step.text('prepend_scheme', { otherwise: 'always' });
			if (!['always', 'first', 'never'].includes(scheme)) throw step.refuse('prepend_scheme', 'always, first or never');
			checkShort(step, 'replacement');
			return [{ type, replacement: step.text('replacement', { otherwise: '▁' }), prepend_scheme: scheme }];
		}
		throw step.refuse('type', 'Split, ByteLevel, Digits, Metaspace, or a Sequence of them');
	});
	return all.length === 0 ? null : { type: 'Sequence', pretokenizers: all };
}

/** The tokens around a text. @param known the tokens that there are */
export function templateOf(file: Fields, known: ReadonlySet<number>): { before: number[]; behind: number[] } {
	const around = { before: [] as number[], behind: [] as number[] };
	for (const step of steps(file, 'post_processor', 'processors')) {
		const type = step.text('type');
		if (type === 'ByteLevel') continue; // moves offsets, which nobody asks for
		if (type !== 'TemplateProcessing') throw step.refuse('type', 'ByteLevel, TemplateProcessing, or a Sequence of them');
		const specials = step.object('special_tokens');
		const before: number[] = [];
		const behind: number[] = [];
		let here = before;
		for (const item of list(step, 'single', mostSteps)) {
			const special = item.object('SpecialToken');
			if (special) {
				const ids = specials?.object(special.text('id'))?.value('ids');
				if (!Array.isArray(ids) || !ids.every((id) => known.has(id))) throw step.refuse('special_tokens', 'the tokens that `single` names');
				here.push(...ids.slice(0, mostSteps));
			} else if (item.object('Sequence')?.value('id') === 'A' && here === before) here = behind;
			else throw step.refuse('single', 'special tokens around one sequence A');
		}
		if (here === before) throw step.refuse('single', 'special tokens around one sequence A');
		around.before.unshift(...before);
		around.behind.push(...behind);
	}
	return around;
}
