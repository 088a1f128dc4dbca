import { type ChatMessage, type ChatOptions, renderChat } from '../text/chat.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { Decoder } from './decoder.js';
import { generate } from './generate.js';
import type { Generation } from './generation.js';
import type { GenerateOptions } from './sequence.js';

export interface ChatGenerateOptions extends Omit<GenerateOptions, 'special'>, Pick<ChatOptions, 'tools'> {
	/** Jinja. @default `tokenizer.chatTemplate` */
	readonly template?: string | undefined;
}

/**
 * The model's answer to a conversation, as `generate` gives it. The messages are the whole conversation from its first word, so the
 * decoder should be one that nothing has been fed to.
 * @example for await (const { text } of chat(session, tokenizer, [{ role: 'user', content: 'Hello' }])) process.stdout.write(text);
 * @throws ArgumentError at once, as `generate` and `renderChat`
 */
export function chat(
	decoder: Decoder,
	tokenizer: Tokenizer,
	messages: readonly ChatMessage[],
	options: ChatGenerateOptions = {},
): Generation {
	const { template = tokenizer.chatTemplate, tools, ...rest } = options;
	const name = (token: number | null | undefined) => (token === null || token === undefined ? '' : tokenizer.name(token));
	const prompt = renderChat(template, messages, {
		bosToken: name(tokenizer.bos),
		eosToken: name(tokenizer.eos[0]),
		...(tools && { tools }),
	});
	return generate(decoder, tokenizer, prompt, { ...rest, special: false }); // the template has put BOS in
}
