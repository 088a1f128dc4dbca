import { ArgumentError } from '../errors.js';
import { type LlamaSizes, limits, type Projection, weightShapes } from '../io/pretrained.js';
import { type FavorKind, favor } from '../ops/favor.js';

/** What mixes tokens: FAVOR+, whose state does not grow, or the exact softmax attention that the model was trained with. */
export type DecoderAttention = 'favor' | 'softmax';

/** Which parameters learn: all, or those of attention's linear maps (query, key, value, output). */
export type TrainablePart = 'all' | 'attention';

/** What a `PerformerDecoder` is built from: plain JSON. Letters as in `LlamaConfig`. */
export interface PerformerDecoderConfig extends LlamaSizes {
	readonly attention: DecoderAttention;
	readonly featureKind: FavorKind;
	/** M, features of a token. */
	readonly features: number;
	/** Steps of training between two draws of Ω; 0: the first draw stays. */
	readonly redrawEvery: number;
	/** Of Ω, an integer in [0, 2³²). */
	readonly seed: number;
	readonly trainable: TrainablePart;
	readonly epsilon: number;
	readonly rope: {
		readonly pairs: 'neighbours' | 'halves';
		/** Radians a position, `[D / 2]`. */
		readonly frequencies: readonly number[];
		readonly magnitude: number;
	};
	/** The last linear map is the embedding. */
	readonly tied: boolean;
	/** Attention's linear maps that have one. */
	readonly biases: readonly Projection[];
	/** By layer; null: a query sees all positions before it. Holds for softmax attention only. */
	readonly slidingWindow: readonly (number | null)[];
	readonly bos: number | null;
	readonly eos: readonly number[];
}

/** Names and shapes of all parameters, Hugging Face's. */
export function* parameterShapes(config: PerformerDecoderConfig): Generator<[name: string, shape: readonly number[]]> {
	yield* weightShapes(config, config.biases);
	if (!config.tied) yield ['lm_head.weight', [config.vocabulary, config.dim]];
}

/** @throws ArgumentError a config that describes no model: it may come from a file */
export function checkConfig(config: PerformerDecoderConfig): void {
	const refuse = (name: string, value: unknown, expected: string): never => {
		throw new ArgumentError(`PerformerDecoder: ${name} is ${JSON.stringify(value) ?? 'nothing'}, expected ${expected}`);
	};
	const whole = (name: string, value: unknown, from: number, end: number) => {
		if (!Number.isInteger(value) || (value as number) < from || (value as number) >= end)
			refuse(name, value, `an integer from ${from} below ${end}`);
	};
	const among = (name: string, value: unknown, names: readonly unknown[]) => {
		if (!names.includes(value)) refuse(name, value, `one of ${names.join(', ')}`);
	};
	const { dim, hidden, layers, heads, kvHeads, headDim, vocabulary, rope, biases, slidingWindow } = config;
	for (const [name, value] of Object.entries({ dim, hidden, heads, kvHeads, headDim, vocabulary })) whole(name, value, 1, limits.side + 1);
	whole('layers', layers, 1, limits.layers + 1);
	if (heads % kvHeads) refuse('heads', heads, `a multiple of kvHeads (${kvHeads})`);
	if (headDim % 2) refuse('headDim', headDim, 'an even number');
	among('attention', config.attention, ['favor', 'softmax']);
	among('trainable', config.trainable, ['all', 'attention']);
	whole('features', config.features, 1, limits.side + 1);
	favor({ kind: config.featureKind, dim: headDim, features: config.features }); // checks the kind, and what it asks of `features`
	whole('redrawEvery', config.redrawEvery, 0, 2 ** 32);
	whole('seed', config.seed, 0, 2 ** 32);
	if (!(config.epsilon >= 0 && config.epsilon < Infinity)) refuse('epsilon', config.epsilon, 'a finite number from 0');
	among('rope.pairs', rope?.pairs, ['neighbours', 'halves']);
	const { frequencies, magnitude } = rope;
	if (!Array.isArray(frequencies) || frequencies.length !== headDim / 2 || !frequencies.every(Number.isFinite))
		refuse('rope.frequencies', frequencies, `${headDim / 2} finite numbers`);
	if (!Number.isFinite(magnitude)) refuse('rope.magnitude', magnitude, 'a finite number');
	if (typeof config.tied !== 'boolean') refuse('tied', config.tied, 'true or false');
	if (!Array.isArray(biases) || !biases.every((each) => ['q', 'k', 'v', 'o'].includes(each)))
		refuse('biases', biases, 'some of q, k, v, o');
	if (!Array.isArray(slidingWindow) || slidingWindow.length !== layers || !slidingWindow.every((size) => size === null || size >= 1))
		refuse('slidingWindow', slidingWindow, `${layers} numbers from 1, or null`);
}
