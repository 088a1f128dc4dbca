import { FormatError } from '../errors.js';
import type { Fields } from '../io/fields.js';
import { type Description, describe } from './description.js';
import type { GgufTokens } from './gguf.js';
import { gpt2Words, isolate } from './steps.js';

/** Words as LLaMA 3 splits them, and most models after it, but for how many digits make a word. */
const words = (digits: string) =>
	"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])" +
	`|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** How the kinds that `tokenizer.ggml.pre` names split a text into words: patterns, one after the other (llama.cpp, llama-vocab.cpp). */
const patterns: ReadonlyMap<string, readonly string[]> = new Map([
	['default', ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Words, '\\p{N}+', '[0-9][0-9][0-9]']],
	['gpt-2', [gpt2Words]],
	['smollm', ['\\p{N}', gpt2Words]],
	['llama-bpe', [words('\\p{N}{1,3}')]],
	['qwen2', [words('\\p{N}')]],
]);

/** GGUF's numbers of the kinds of tokens that are looked for in the text, and of those among them that are no text. */
const looked: readonly number[] = [2, 3, 4];
const silent: readonly number[] = [2, 3];

/**
 * The tokenizer.json that says what a GGUF of kind `gpt2` says.
 * @throws FormatError
 */
export function byteLevelDescription(file: Fields, { texts, kind }: GgufTokens): Description {
	const pre = file.text('tokenizer.ggml.pre', { otherwise: 'default' });
	const split = patterns.get(pre);
	if (!split) throw file.refuse('tokenizer.ggml.pre', [...patterns.keys()].join(', '));
	const merges = file.value('tokenizer.ggml.merges');
	if (!Array.isArray(merges)) throw file.refuse('tokenizer.ggml.merges', 'a list of pairs');
	const vocabulary = new Map<string, number>();
	texts.forEach((text, token) => {
		const other = vocabulary.get(text);
		if (other !== undefined) throw new FormatError(file.path, `tokens ${other} and ${token} have the same text, expected all to differ`);
		vocabulary.set(text, token);
	});
	const added = texts.flatMap((content, id) =>
		looked.includes(kind[id]!) ? [{ id, content, special: silent.includes(kind[id]!), normalized: false }] : [],
	);
	return describe(file.path, {
		added_tokens: added,
		// Qwen 2 was trained on composed characters; its tokenizer.json says so, and a GGUF has no key for it.
		normalizer: pre === 'qwen2' ? { type: 'NFC' } : null,
		pre_tokenizer: {
			type: 'Sequence',
			pretokenizers: [...split.map(isolate), { type: 'ByteLevel', add_prefix_space: false, use_regex: false }],
		},
		post_processor: null,
		decoder: { type: 'ByteLevel' },
		model: { type: 'BPE', vocab: Object.fromEntries(vocabulary), merges, ignore_merges: pre === 'llama-bpe' },
	});
}
