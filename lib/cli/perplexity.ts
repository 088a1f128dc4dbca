import { type Command, Option } from 'commander';
import { FormatError } from '../errors.js';
import type { Llama } from '../models/llama.js';
import { beyondContext, bytes, type DecoderOptions, decoderOptions, openModel, policyOf, settings } from './decoder_options.js';
import { command, integer, type Session } from './session.js';
import { checkText, encodeFile, nameOf, type SomeTokens } from './text_file.js';

interface PerplexityOptions extends DecoderOptions {
	readonly text: string;
	readonly context?: number;
}

/** Tokens that are scored at a time: between them, Ctrl-C has its turn. A multiple of what a session feeds at a time. */
const GROUP = 2048;

export function perplexity(): Command {
	return decoderOptions(
		command<PerplexityOptions>(
			'perplexity',
			'How well a pretrained decoder predicts a text, token by token, with as many states as --cache and --states allow. Strict ' +
				'streaming: every state is evicted when its time comes. The whole text is one sequence from its beginning (BOS, where the ' +
				'tokenizer has one), or with --context as many short ones. The first token of a sequence is not scored.',
			run,
		),
	)
		.requiredOption('--text <file>', 'the text, in UTF-8; - is stdin')
		.addOption(
			new Option('--context <n>', 'cut the text into sequences of so many tokens, BOS included, each with an empty cache').argParser(
				integer(2),
			),
		);
}

async function run(options: PerplexityOptions, session: Session): Promise<void> {
	policyOf(options); // what is wrong with the rest is said before a model is loaded
	await checkText(options.text);
	using model = await openModel(options, session);
	const found = await score(model, options, session);
	const { perplexity, nll, tokens, bitsPerByte, states, cacheBytes, seconds, tokensPerSecond } = found;
	session.result(
		{ ...found, ...settings(options, model), text: options.text, context: options.context ?? null },
		[
			`perplexity   ${perplexity.toFixed(4)}`,
			`loss         ${nll.toFixed(4)} nats a token, ${bitsPerByte.toFixed(4)} bits a byte of the text`,
			`tokens       ${tokens} scored in ${seconds.toFixed(1)} s, ${tokensPerSecond.toFixed(0)} tokens/s`,
			`cache        ${options.cache.name}: ${states} states a layer, ${bytes(cacheBytes)}`,
		].join('\n'),
	);
}

async function score(model: Llama, options: PerplexityOptions, session: Session) {
	const { signal } = session;
	const { tokenizer } = model;
	const [first] = tokenizer.encode('');
	const before = first !== undefined && first === tokenizer.bos ? [first] : [];
	const room = options.context === undefined ? GROUP : options.context - before.length;
	const made = { cache: policyOf(options), positions: options.positions, dtype: options.cacheType };
	const all = { nll: 0, tokens: 0, bytes: 0, unscored: 0, seconds: 0, states: 0, cacheBytes: 0 };
	let running = model.session(made);
	let warned = false;
	try {
		for await (const { tokens, bytes, done } of groups(encodeFile(options.text, tokenizer, { signal }), room)) {
			const started = performance.now();
			if (options.context !== undefined && running.position > 0) {
				running.dispose();
				running = model.session(made);
			}
			const fresh = running.position === 0;
			const list = fresh ? Int32Array.from([...before, ...tokens]) : tokens;
			const { nll } = await running.score(list, { signal });
			for (let i = fresh ? 1 : 0; i < list.length; i++) {
				const loss = nll[i]!;
				if (!Number.isFinite(loss)) throw notFinite(model, options, all.tokens, tokenizer.name(list[i]!), loss);
				all.nll += loss;
				all.tokens++;
			}
			if (fresh && before.length === 0) all.unscored += tokenizer.bytes(tokens[0]!, all.tokens === 0).length;
			all.bytes = bytes;
			all.seconds += (performance.now() - started) / 1000;
			all.states = Math.max(all.states, running.states);
			all.cacheBytes = Math.max(all.cacheBytes, running.bytes);
			if (!warned) {
				const beyond = beyondContext(model, options, running.position);
				warned = beyond !== '';
				if (warned) session.log(beyond);
			}
			if (done >= 0) session.progress('scoring', done, `perplexity ${Math.exp(all.nll / all.tokens).toFixed(3)}`);
			await new Promise(setImmediate); // lets Ctrl-C have its turn
			signal.throwIfAborted();
		}
	} finally {
		running.dispose();
	}
	if (all.tokens === 0)
		throw new FormatError(nameOf(options.text), 'the text has no token to score, expected at least one after the first');
	const { tokens, seconds, states, cacheBytes } = all;
	const nll = all.nll / tokens;
	const bitsPerByte = all.nll / Math.LN2 / (all.bytes - all.unscored);
	return {
		perplexity: Math.exp(nll),
		nll,
		bitsPerByte,
		tokens,
		bytes: all.bytes,
		states,
		cacheBytes,
		seconds,
		tokensPerSecond: tokens / seconds,
	};
}

function notFinite(model: Llama, { text }: PerplexityOptions, scored: number, token: string, loss: number): FormatError {
	const where = `token ${scored + 1} of those that are scored in ${nameOf(text)}, ${JSON.stringify(token)}`;
	return new FormatError(
		model.path,
		`the loss of ${where}, is ${loss}, expected a finite number: the weights make numbers that f32 cannot hold`,
	);
}

/** The same tokens in groups of `size`; the last may be shorter. */
async function* groups(source: AsyncIterable<SomeTokens>, size: number): AsyncGenerator<SomeTokens, void> {
	let waiting: number[] = [];
	let last = { bytes: 0, done: 0 };
	for await (const { tokens, ...rest } of source) {
		let at = 0;
		for (; waiting.length + tokens.length - at >= size; waiting = []) {
			const end = at + size - waiting.length;
			yield {
				tokens: Int32Array.from([...waiting, ...tokens.subarray(at, end)]),
				bytes: rest.bytes,
				done: last.done + ((rest.done - last.done) * end) / tokens.length,
			};
			at = end;
		}
		for (const token of tokens.subarray(at)) waiting.push(token);
		last = rest;
	}
	if (waiting.length > 0) yield { tokens: Int32Array.from(waiting), ...last };
}
