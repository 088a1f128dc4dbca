import { once } from 'node:events';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { ArgumentError } from '../errors.js';
import { chat, type Decoder, type Generation, generate as generateFrom, type Piece, type Reason } from '../generate/index.js';
import type { Llama } from '../models/llama.js';
import type { Session as Running } from '../models/session.js';
import { Trace } from '../models/trace.js';
import type { ChatMessage } from '../text/chat.js';
import { beyondContext, bytes, type DecoderOptions, decoderOptions, openModel, policyOf, settings } from './decoder_options.js';
import { command, integer, number, oneOf, type Session } from './session.js';
import { readText } from './text_file.js';
import { checkPlace, writeTrace } from './trace_file.js';

interface GenerateOptions extends DecoderOptions {
	readonly prompt?: string;
	readonly promptFile?: string;
	readonly chat: boolean;
	readonly system?: string;
	readonly prefill: 'stream' | 'select';
	readonly maxTokens: number;
	readonly temperature: number;
	readonly topK: number;
	readonly topP: number;
	readonly minP: number;
	readonly repetitionPenalty: number;
	readonly frequencyPenalty: number;
	readonly presencePenalty: number;
	readonly stop: readonly string[];
	readonly ignoreEos: boolean;
	readonly trace?: string;
}

/** Sampling begins from llama.cpp's settings, which people know. */
export function generate(): Command {
	return decoderOptions(
		command<GenerateOptions>(
			'generate',
			'Go on from a prompt with a pretrained decoder, in memory that --cache and --states bound. The text goes to stdout as it comes, ' +
				'figures to stderr. Without a prompt it begins where texts begin. The same --seed gives the same text.',
			run,
		),
	)
		.option('--prompt <text>', 'what the text begins with')
		.addOption(
			new Option('--prompt-file <file>', 'the same from a UTF-8 file, without its last line break; - is stdin').conflicts('prompt'),
		)
		.option('--chat', "the prompt is a user's message, written as the model's own template says", false)
		.option('--system <text>', 'with --chat: what the model is told before the message')
		.addOption(
			new Option('--prefill <way>', 'how the prompt is taken in: stream evicts on the way; select once, after full attention to all of it')
				.default('stream')
				.argParser(oneOf('stream', 'select')),
		)
		.addOption(new Option('--max-tokens <n>', 'tokens to generate at most').default(256).argParser(integer(1)))
		.addOption(new Option('--temperature <n>', '0: always the likeliest token').default(0.8).argParser(number(0)))
		.addOption(new Option('--top-k <n>', 'only the n likeliest tokens; 0: all').default(40).argParser(integer(0)))
		.addOption(
			new Option('--top-p <share>', 'only the likeliest tokens that have this share together').default(0.95).argParser(number(0, 1)),
		)
		.addOption(new Option('--min-p <share>', 'only tokens this likely, against the likeliest').default(0.05).argParser(number(0, 1)))
		.addOption(new Option('--repetition-penalty <n>', 'above 1: against what is among the last 64 tokens').default(1).argParser(number(0)))
		.addOption(new Option('--frequency-penalty <n>', 'for each time that it is').default(0).argParser(number(-100, 100)))
		.addOption(new Option('--presence-penalty <n>', 'once if it is').default(0).argParser(number(-100, 100)))
		.addOption(
			new Option('--stop <text>', 'ends the text and is not part of it; may be given several times').default([], 'none').argParser(stops),
		)
		.option('--ignore-eos', "go on after the model's own end", false)
		.option('--trace <file>', 'write a page (HTML) that shows, token by token, which states each layer keeps');
}

function stops(text: string, before: readonly string[]): string[] {
	if (text === '') throw new InvalidArgumentError('expected text.');
	return [...before, text];
}

/** What came of it, as far as it came. */
interface Written {
	text: string;
	readonly ids: number[];
	reason: Reason | null;
	/** Of the prompt, until the first token is chosen; and from there to the last. */
	promptSeconds: number;
	seconds: number;
}

async function run(options: GenerateOptions, session: Session): Promise<void> {
	const cache = policyOf(options);
	if (options.system !== undefined && !options.chat) throw new ArgumentError('--system is given without --chat, expected both');
	if (options.chat && !options.prompt && !options.promptFile)
		throw new ArgumentError('--chat is given without a message, expected --prompt or --prompt-file');
	if (options.trace !== undefined) await checkPlace(options.trace);
	const prompt = await promptOf(options, session.signal);
	using model = await openModel(options, session);
	using running = model.session({ cache, positions: options.positions, dtype: options.cacheType, prefill: options.prefill });
	const trace = options.trace === undefined ? null : new Trace(running, cache);
	const generation = begin(model, decoderOf(running, trace, options, session), prompt, options, session.signal);
	const promptIds = generation.pending;
	const beyond = beyondContext(model, options, promptIds.length + options.maxTokens);
	if (beyond) session.log(beyond);
	const written: Written = { text: '', ids: [], reason: null, promptSeconds: 0, seconds: 0 };
	try {
		await write(generation, written, options.json, session);
	} finally {
		// What was generated before Ctrl-C is worth a look too.
		if (trace && trace.steps > 0)
			await writeTrace(options.trace!, { model, trace, options, ids: [...promptIds, ...written.ids], prompt: promptIds.length });
	}
	report(options, session, running, model, promptIds.length, written);
}

async function promptOf({ prompt = '', promptFile }: GenerateOptions, signal: AbortSignal): Promise<string> {
	return promptFile === undefined ? prompt : (await readText(promptFile, signal)).replace(/\r?\n$/, '');
}

/** A session as what generating needs: it tells how far the prompt is, and shows the trace every step. */
function decoderOf(running: Running, trace: Trace | null, { prefill }: GenerateOptions, session: Session): Decoder {
	const label = 'prompt';
	return {
		vocabulary: running.model.config.vocabulary,
		get position() {
			return running.position;
		},
		async next(tokens, options = {}) {
			if (!trace || prefill === 'select') {
				const onProgress = tokens.length > 1 ? (done: number) => session.progress(label, done) : undefined;
				const logits = await running.next(tokens, { ...options, ...(onProgress && { onProgress }) });
				await trace?.look();
				return logits;
			}
			let logits = new Float32Array(0);
			for (let i = 0; i < tokens.length; i++) {
				logits = (await running.next([tokens[i]!], options)) as typeof logits;
				await trace.look();
				if (tokens.length > 1) session.progress(label, (i + 1) / tokens.length);
			}
			return logits;
		},
	};
}

function begin(model: Llama, decoder: Decoder, prompt: string, options: GenerateOptions, signal: AbortSignal): Generation {
	if (!options.chat) return generateFrom(decoder, model.tokenizer, prompt, { ...options, signal });
	const messages: ChatMessage[] = [{ role: 'user', content: prompt }];
	if (options.system !== undefined) messages.unshift({ role: 'system', content: options.system });
	return chat(decoder, model.tokenizer, messages, { ...options, signal });
}

/** Take the pieces as they come. Text for people goes out at once, and its last line is ended however it ends. */
async function write(generation: Generation<Piece>, written: Written, silent: boolean, session: Session): Promise<void> {
	const started = performance.now();
	const parts: string[] = [];
	try {
		for await (const { text, token, reason } of generation) {
			const now = (performance.now() - started) / 1000;
			if (written.ids.length === 0) {
				session.done();
				written.promptSeconds = now;
			}
			written.seconds = now - written.promptSeconds;
			written.ids.push(token);
			written.reason = reason ?? null;
			parts.push(text);
			if (!silent && text !== '' && !process.stdout.write(text)) await once(process.stdout, 'drain', { signal: session.signal });
			await new Promise(setImmediate); // lets Ctrl-C have its turn
		}
	} finally {
		session.done();
		written.text = parts.join('');
		if (!silent && written.text !== '' && !written.text.endsWith('\n')) process.stdout.write('\n');
	}
}

function report(options: GenerateOptions, session: Session, running: Running, model: Llama, promptTokens: number, written: Written): void {
	const { text, ids, reason, promptSeconds, seconds } = written;
	const tokens = ids.length;
	// The first token comes with the prompt: the time of the others is that of the steps between.
	const tokensPerSecond = tokens > 1 ? (tokens - 1) / seconds : tokens / promptSeconds;
	const { states, bytes: cacheBytes } = running;
	if (!options.json) {
		const ends = { eos: 'the model ended the text', stop: 'a stop string ended the text', length: 'as many tokens as --max-tokens allows' };
		session.log(
			[
				`${tokens} tokens in ${seconds.toFixed(2)} s, ${tokensPerSecond.toFixed(1)} tokens/s`,
				`prompt of ${promptTokens} in ${promptSeconds.toFixed(2)} s`,
				`${options.cache.name}: ${states} states a layer, ${bytes(cacheBytes)}`,
				ends[reason!],
				...(options.trace === undefined ? [] : [`trace: ${options.trace}`]),
			].join('; '),
		);
		return;
	}
	session.result(
		{
			text,
			tokens,
			ids,
			reason,
			states,
			cacheBytes,
			tokensPerSecond,
			seconds,
			promptTokens,
			promptSeconds,
			...settings(options, model),
			prefill: options.prefill,
			...(options.trace !== undefined && { trace: options.trace }),
		},
		'',
	);
}
