import type { DeviceName } from '../device.js';
import { DisposedError } from '../errors.js';
import { openPretrained } from '../io/open_pretrained.js';
import type { LlamaConfig, PretrainedFiles } from '../io/pretrained.js';
import { twoFloats } from '../ops/rope.js';
import { persist, type Resource, Tensor } from '../tensor.js';
import { openTokenizer } from '../text/open_tokenizer.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { checkDtype, type WeightDtype } from './llama_convert.js';
import { hashOf } from './llama_hash.js';
import { Activations, logitsOf, type Pass, runLayers } from './llama_pass.js';
import { type LlamaWeights, mapWeights, tensorsOf } from './llama_weights.js';
import { type PerformerizeOptions, performerize } from './performerize.js';
import type { PerformerDecoder } from './performerize_decoder.js';
import { Session } from './session.js';
import type { SessionOptions } from './session_options.js';

/** Rows of activations that are not kept for the next pass. */
const MANY_ROWS = 4096;

export interface LlamaOptions {
	/** @default 'cpu' */
	readonly device?: DeviceName;
	/**
	 * Convert the matrices to this type while they are loaded, one at a time, instead of using them as they are in the file. Where q8_0 is
	 * asked for, those whose rows are no multiple of 32 numbers become f16. The results take memory, which the file's own pages do not.
	 */
	readonly dtype?: WeightDtype;
	/** Read every weight once and refuse numbers that are not finite. @default true */
	readonly verify?: boolean;
	/** Where the tokenizer is. @default beside the weights, or in them */
	readonly tokenizer?: string;
	readonly signal?: AbortSignal;
}

/**
 * A pretrained decoder of the LLaMA family (LLaMA, Mistral, Qwen2 and what shares their shape: Yi, TinyLlama, SmolLM), as a recurrent
 * network: a session holds at most as many states a layer as its policy allows, however long it runs.
 *
 * Weights stay in their file, mapped into memory, and are used in the precision that they have, unless a `dtype` is asked for.
 * @example
 * using model = await Llama.load('SmolLM-135M');
 * using session = model.session({ cache: tova(512) });
 * for await (const { text } of session.generate('Once upon a time')) process.stdout.write(text);
 * @see Touvron et al. 2023, "LLaMA", section 2.2; as a multi-state RNN: Oren et al. 2024, "Transformers are multi-state RNNs", section 3
 */
export class Llama implements Resource {
	/** Where it was loaded from. */
	readonly path: string;
	readonly config: LlamaConfig;
	readonly tokenizer: Tokenizer;
	readonly device: DeviceName;
	readonly #files: PretrainedFiles;
	readonly #weights: LlamaWeights;
	readonly #dtype: WeightDtype | undefined;
	readonly #frequencies: Tensor;
	#activations: Activations | undefined;
	#turn: Promise<void> = Promise.resolve();
	#hash: string | undefined;
	#disposed = false;

	private constructor(files: PretrainedFiles, weights: LlamaWeights, tokenizer: Tokenizer, { device = 'cpu', dtype }: LlamaOptions) {
		this.path = files.path;
		this.config = files.config;
		this.tokenizer = tokenizer;
		this.device = device;
		this.#files = files;
		this.#weights = weights;
		this.#dtype = dtype;
		const { frequencies } = files.config.rope;
		this.#frequencies = persist(Tensor.empty([frequencies.length, 2], device, 'f32', twoFloats(frequencies)));
	}

	/**
	 * @param path a Hugging Face folder (config.json, safetensors in one file or in shards, tokenizer.json), a .gguf file, or a .bin of llama2.c
	 * @throws FormatError a file that is not what it should be, with the byte where there is one
	 * @throws ArgumentError a dtype of another name
	 */
	static async load(path: string, options: LlamaOptions = {}): Promise<Llama> {
		const { device = 'cpu', verify = true, dtype, signal } = options;
		checkDtype(dtype);
		const files = await openPretrained(path, { signal });
		const { vocabulary } = files.config;
		const metadata = options.tokenizer === undefined ? (files.metadata ?? undefined) : undefined;
		const tokenizer = await openTokenizer(options.tokenizer ?? path, { vocabulary, metadata });
		const weights = await mapWeights(files, { device, verify, dtype, signal });
		return new Llama(files, weights, tokenizer, options);
	}

	/** Bytes of the weights, most of them the file's own pages where they are not converted. */
	get bytes(): number {
		let n = 0;
		for (const tensor of tensorsOf(this.#weights)) n += tensor.bytes;
		return n;
	}

	get disposed(): boolean {
		return this.#disposed;
	}

	/** A running sequence, or some side by side. */
	session(options: SessionOptions): Session {
		this.#check();
		return new Session(this, options);
	}

	/**
	 * The same weights with FAVOR+ in place of softmax attention, as a model to be trained: with features of softmax it is near to this one from
	 * the start, and a little of `fit` brings back what that costs.
	 * @see Choromanski et al. 2021, "Rethinking attention with Performers", section 4.2
	 */
	async performerize(options: PerformerizeOptions = {}): Promise<PerformerDecoder> {
		this.#check();
		return performerize(this.#weights, this.config, this.device, options);
	}

	/**
	 * For sessions: the layers over new tokens, and what `use` makes of their rows. One pass at a time: `use` queues its work before the
	 * next pass takes the rows.
	 */
	async run<R>(pass: Pass, use: (activations: Activations) => R): Promise<R> {
		const before = this.#turn;
		let done = () => {};
		this.#turn = new Promise((resolve) => {
			done = resolve;
		});
		await before;
		try {
			this.#check();
			const activations = this.#rows(pass.ids.length);
			await runLayers(this.#weights, this.config, this.#frequencies, activations, pass);
			const result = use(activations);
			if (activations.rows > MANY_ROWS) activations.dispose(); // of a prompt that was taken in at once
			return result;
		} finally {
			done();
		}
	}

	#rows(count: number): Activations {
		const present = this.#activations;
		if (present && !present.disposed && present.rows >= count && present.rows <= 8 * count + 64) return present;
		present?.dispose();
		return (this.#activations = new Activations(count, this.config, this.device));
	}

	/** For sessions: logits of rows that `run` left. */
	logits(activations: Activations, rows: Int32Array): Tensor {
		return logitsOf(this.#weights, this.config, activations, rows);
	}

	/** What tells this model from others (llama_hash.ts). */
	async hash(): Promise<string> {
		return (this.#hash ??= await hashOf(this.#files, this.#dtype));
	}

	/** Free the weights. Sessions that still run fail at their next call. */
	dispose(): void {
		if (this.#disposed) return;
		this.#disposed = true;
		for (const tensor of tensorsOf(this.#weights)) tensor.dispose();
		this.#frequencies.dispose();
		this.#activations?.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}

	#check(): void {
		if (this.#disposed) throw new DisposedError(`model ${this.path} has been disposed of`);
	}
}
