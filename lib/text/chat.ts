import { createRequire } from 'node:module';
import { ArgumentError } from '../errors.js';
import { bounded, TimeUp } from './bounded.js';

/** What is used of the library: its types are those of an ES module, which cannot be imported from here. */
interface Jinja {
	Template: new (template: string) => { render(values: object): string };
}

const load = createRequire(__filename);

export interface ChatMessage {
	/** As the template knows them: mostly `system`, `user`, `assistant`. */
	readonly role: string;
	readonly content: string;
}

export interface ChatOptions {
	/** End where the model's answer begins. @default true */
	readonly addGenerationPrompt?: boolean;
	/** How BOS and EOS are written (`tokenizer.name`): many templates put them in. @default '' */
	readonly bosToken?: string;
	readonly eosToken?: string;
	/** Descriptions of functions that the model may call, where the template knows about them. */
	readonly tools?: readonly object[];
}

/** The longest published templates have some 30,000 characters. */
const longestTemplate = 2 ** 18;
const longestRange = 100_000;
const longestText = 2 ** 26;
const milliseconds = 2_000;

/**
 * Messages as the text that a model was trained on. Encode it with `{ special: false }`: the template puts BOS in itself.
 *
 * Templates come from files and are programs: they reach the messages and nothing of the machine. They run for at most 2 seconds and
 * `range` makes at most 100,000 numbers; the memory that a template takes in that time is not bounded otherwise.
 * @param template Jinja, as in `tokenizer.chatTemplate`
 * @throws ArgumentError there is no template, it is no Jinja, it refuses the messages (with its own words) or takes too long
 */
export function renderChat(template: string | null, messages: readonly ChatMessage[], options: ChatOptions = {}): string {
	const { addGenerationPrompt = true, bosToken = '', eosToken = '', tools } = options;
	if (template === null) {
		throw new ArgumentError('renderChat: the model has no chat template, expected one in its files or a plain prompt instead of messages');
	}
	if (typeof template !== 'string' || template.length > longestTemplate) {
		const found = typeof template === 'string' ? `${template.length} characters long` : `of type ${typeof template}`;
		throw new ArgumentError(`renderChat: template is ${found}, expected a string of at most ${longestTemplate}`);
	}
	if (!Array.isArray(messages)) throw new ArgumentError('renderChat: messages are no list, expected [{ role, content }]');
	messages.forEach((message, i) => {
		if (typeof message?.role !== 'string' || typeof message.content !== 'string') {
			throw new ArgumentError(`renderChat: messages[${i}] is not made of text, expected { role, content }`);
		}
	});
	const { Template }: Jinja = load('@huggingface/jinja');
	const values = {
		messages,
		add_generation_prompt: addGenerationPrompt,
		bos_token: bosToken,
		eos_token: eosToken,
		tools: tools ?? null,
		short_range: shortRange,
	};
	try {
		const text = bounded(milliseconds, () => new Template(prelude + template).render(values));
		if (text.length > longestText) throw new Error(`the text has ${text.length} characters, expected at most ${longestText}`);
		return text;
	} catch (error) {
		if (error instanceof TimeUp) {
			throw new ArgumentError(`renderChat: the chat template runs for more than ${milliseconds} ms, expected an end`, { cause: error });
		}
		throw new ArgumentError(`renderChat: the chat template says: ${(error as Error).message}`, { cause: error });
	}
}

/** Puts our `range` in place of the library's, which makes any number of numbers. Nothing of this line is in the text. */
const prelude = '{% set range = short_range %}\n';

/** Python's `range`, of a bounded length. */
function shortRange(...given: number[]): number[] {
	const [start, stop, step = 1] = given.length > 1 ? given : [0, ...given];
	const length = Math.max(0, Math.ceil((stop! - start!) / step));
	if (!(length <= longestRange)) throw new Error(`range(${given.join(', ')}) is too long, expected at most ${longestRange} numbers`);
	return Array.from({ length }, (_, i) => start! + i * step);
}
