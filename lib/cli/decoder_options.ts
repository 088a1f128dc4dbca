import { type Command, InvalidArgumentError, Option } from 'commander';
import { full, h2o, type Policy, tova, window } from '../cache/index.js';
import { setThreads } from '../device.js';
import { ArgumentError } from '../errors.js';
import { Llama } from '../models/llama.js';
import { type WeightDtype, weightDtypes } from '../models/llama_convert.js';
import { type CommonOptions, integer, oneOf, type Session } from './session.js';

/** A policy as the command line names it. */
export interface CacheName {
	/** As it was written. */
	readonly name: string;
	readonly kind: 'full' | 'window' | 'h2o' | 'tova';
	/** First positions that stay. */
	readonly sinks: number;
}

/** What every command over a pretrained decoder takes. */
export interface DecoderOptions extends CommonOptions {
	readonly model: string;
	readonly tokenizer?: string;
	readonly dtype?: WeightDtype;
	readonly cache: CacheName;
	readonly states?: number;
	readonly positions: 'original' | 'cache';
	readonly cacheType: 'f32' | 'f16';
	readonly threads?: number;
}

/** More than any text has tokens that a model could be asked to look at. */
const mostStates = 2 ** 24;

/** Add those options to a command. */
export function decoderOptions(command: Command): Command {
	return command
		.requiredOption('--model <path>', 'a Hugging Face folder, a .gguf file, or a .bin of llama2.c')
		.option('--tokenizer <path>', 'where its tokenizer is (default: beside the weights, or in them)')
		.addOption(
			new Option(
				'--dtype <type>',
				`what weights are converted to: ${weightDtypes.join(', ')} (default: as they are in the file)`,
			).argParser(oneOf(...weightDtypes)),
		)
		.addOption(
			new Option('--cache <policy>', 'which states stay: full, window, window+N (and the first N), h2o or tova')
				.default({ name: 'full', kind: 'full', sinks: 0 } satisfies CacheName, 'full')
				.argParser(cacheName),
		)
		.addOption(new Option('--states <n>', 'states held at most, a layer; needed unless --cache is full').argParser(integer(1)))
		.addOption(
			new Option('--positions <kind>', 'original: as in the sequence; cache: places in the cache, for streams longer than the context')
				.default('original')
				.argParser(oneOf('original', 'cache')),
		)
		.addOption(
			new Option('--cache-type <type>', 'how keys and values are stored: f32 or f16').default('f32').argParser(oneOf('f32', 'f16')),
		)
		.addOption(new Option('--threads <n>', 'that the processor uses (default: all there are)').argParser(threadsOf));
}

function cacheName(text: string): CacheName {
	const found = /^(?:(full|window|h2o|tova)|window\+([1-9]\d{0,8}))$/.exec(text);
	if (!found) throw new InvalidArgumentError('expected full, window, window+N, h2o or tova.');
	return { name: text, kind: (found[1] ?? 'window') as CacheName['kind'], sinks: Number(found[2] ?? 0) };
}

function threadsOf(text: string): number {
	const value = integer(1)(text);
	if (value > 1024) throw new InvalidArgumentError('expected an integer from 1 to 1024.');
	return value;
}

/** @throws ArgumentError --states is missing, too many or too few */
export function policyOf({ cache, states }: DecoderOptions): Policy {
	if (cache.kind === 'full') {
		if (states !== undefined)
			throw new ArgumentError(`--states is ${states} and --cache is full, expected a policy that keeps fewer than all`);
		return full();
	}
	if (states === undefined) throw new ArgumentError(`--states is missing, expected how many --cache ${cache.name} may hold`);
	if (states > mostStates) throw new ArgumentError(`--states is ${states}, expected at most ${mostStates}`);
	if (cache.sinks > states)
		throw new ArgumentError(`--states is ${states}, expected at least the ${cache.sinks} that ${cache.name} always keeps`);
	if (cache.kind === 'window') return window(states, { sinks: cache.sinks });
	return cache.kind === 'h2o' ? h2o(states) : tova(states);
}

/** The model, with the threads that were asked for. */
export async function openModel(options: DecoderOptions, session: Session): Promise<Llama> {
	const { device, tokenizer, dtype, threads } = options;
	if (threads !== undefined) setThreads(threads);
	const started = performance.now();
	const model = await Llama.load(options.model, {
		device,
		signal: session.signal,
		...(tokenizer !== undefined && { tokenizer }),
		...(dtype !== undefined && { dtype }),
	});
	const { architecture, layers, context } = model.config;
	const seconds = ((performance.now() - started) / 1000).toFixed(2);
	session.log(
		`${options.model}: ${architecture}, ${layers} layers, context ${context}, ${bytes(model.bytes)} of weights, loaded in ${seconds} s`,
	);
	return model;
}

/** What goes wrong when a model is given positions that it has not been trained on, as a sentence; '' when it is not. */
export function beyondContext(model: Llama, { positions, cache, states = Infinity }: DecoderOptions, tokens: number): string {
	const { context } = model.config;
	const reached = positions === 'cache' ? Math.min(tokens, states) : tokens;
	if (reached <= context) return '';
	const way =
		positions === 'cache' || cache.kind === 'full'
			? `--cache window+4, h2o or tova with --states up to ${context} and --positions cache`
			: '--positions cache';
	return `note: ${reached} positions are more than the ${context} that the model was trained on, which makes it fail there; ${way} goes on without end`;
}

/** Bytes for people. */
export function bytes(count: number): string {
	if (count < 2 ** 10) return `${count} bytes`;
	const unit = count < 2 ** 20 ? 1 : count < 2 ** 30 ? 2 : 3;
	return `${(count / 2 ** (10 * unit)).toFixed(1)} ${['KiB', 'MiB', 'GiB'][unit - 1]}`;
}

/** What the result says of how it was made. */
export function settings(options: DecoderOptions, model: Llama) {
	const { dtype, cache, states, positions, cacheType, device, seed } = options;
	return { model: model.path, dtype: dtype ?? null, cache: cache.name, size: states ?? null, positions, cacheType, device, seed };
}
