import path from 'node:path';
import { FormatError } from '../errors.js';
import { readBytes } from '../io/bytes.js';
import { Fields, isObject, openFile, readJson } from '../io/fields.js';
import { exists } from '../io/files.js';
import { describedTokenizer } from './described.js';
import { type Description, describe } from './description.js';
import type { Tokenizer } from './tokenizer.js';

const longestTemplate = 2 ** 20;

/**
 * A Hugging Face tokenizer of byte-pair merges: tokenizer.json, and beside it, where they are, tokenizer_config.json,
 * special_tokens_map.json and chat_template.jinja.
 * @param options.vocabulary V of the model. Tokens from V on are refused. @default as many as there are tokens
 * @throws FormatError with the file that is not what it should be
 */
export async function readHuggingFaceTokenizer(
	file: string,
	{ vocabulary }: { readonly vocabulary?: number | undefined } = {},
): Promise<Tokenizer> {
	const folder = path.dirname(file);
	const json = await readJson(file);
	const description = describe(file, Object.fromEntries(json.names.map((name) => [name, json.value(name)])), vocabulary);
	const config = await optional(path.join(folder, 'tokenizer_config.json'));
	const map = await optional(path.join(folder, 'special_tokens_map.json'));
	const tokens = new Map([...description.vocabulary, ...description.added.map(({ content, id }) => [content, id] as const)]);
	const token = (name: string): number | null => tokenNamed(config.has(name) ? config : map, name, tokens);
	const bos = token('bos_token');
	const eos = token('eos_token');
	return describedTokenizer(description, {
		size: vocabulary,
		bos: bos ?? (description.before.length === 1 ? description.before[0]! : null),
		eos: eos === null ? [] : [eos],
		chatTemplate: (await templateBeside(folder)) ?? templateIn(config),
		...around(description, config, bos, eos),
	});
}

async function optional(file: string): Promise<Fields> {
	return (await exists(file)) ? readJson(file) : new Fields(file, {});
}

/** A token that is written as text, or as an object with its text. */
function tokenNamed(file: Fields, name: string, tokens: ReadonlyMap<string, number>): number | null {
	const value = file.value(name);
	if (value === undefined) return null;
	const text = isObject(value) ? new Fields(file.path, value, `${name}.`).text('content') : file.text(name);
	const token = tokens.get(text);
	if (token === undefined) throw file.refuse(name, 'a token of the vocabulary');
	return token;
}

/** The tokenizer classes of LLaMA have their own rule for the tokens around a text, whatever tokenizer.json says (transformers). */
function around(description: Description, config: Fields, bos: number | null, eos: number | null): Pick<Description, 'before' | 'behind'> {
	const type = config.text('tokenizer_class', { otherwise: '' });
	if (!['LlamaTokenizer', 'LlamaTokenizerFast'].includes(type)) return description;
	return {
		before: config.boolean('add_bos_token', true) && bos !== null ? [bos] : [],
		behind: config.boolean('add_eos_token', false) && eos !== null ? [eos] : [],
	};
}

/** A template by itself, or the one called `default` of several. */
function templateIn(config: Fields): string | null {
	const value = config.value('chat_template');
	if (!Array.isArray(value)) return config.text('chat_template', { otherwise: null });
	const named = value.find((each: unknown) => isObject(each) && each.name === 'default');
	if (!isObject(named) || typeof named.template !== 'string') throw config.refuse('chat_template', 'a template called default');
	return named.template;
}

async function templateBeside(folder: string): Promise<string | null> {
	const file = path.join(folder, 'chat_template.jinja');
	if (!(await exists(file))) return null;
	await using opened = await openFile(file);
	const { size } = await opened.stat();
	if (size > longestTemplate) throw new FormatError(file, `the file has ${size} bytes, expected at most ${longestTemplate}`);
	return (await readBytes(file, opened, 0, size)).toString('utf8');
}
