import { ArgumentError } from '../errors.js';
import type { MixerName } from '../layers/block.js';
import type { FavorKind } from '../ops/favor.js';

export interface PerformerConfig {
	/** V: tokens are integers from 0 below it. */
	readonly vocabulary: number;
	/** Model width. @default 128 */
	readonly dim?: number;
	/** @default 3 */
	readonly layers?: number;
	/** @default 4 */
	readonly heads?: number;
	/** Width of the feed-forward part. @default 4 · dim */
	readonly hidden?: number;
	/** @default 'performer' */
	readonly mixer?: MixerName;
	/** M, random features of a query or key. @default 256 */
	readonly features?: number;
	/** @default 'softmax' */
	readonly featureKind?: FavorKind;
	/** Training steps between two draws of the features; 0: the first draw stays. @default 1000 */
	readonly redrawEvery?: number;
	/** Token t sees tokens up to t; without, every token sees all. @default true */
	readonly causal?: boolean;
	/** Rotary positions. Aaren has none. @default true but for Aaren */
	readonly rope?: boolean;
	/** @default 0.1 */
	readonly dropout?: number;
	/** @default 'pre' */
	readonly norm?: 'pre' | 'post';
	/** Which token stands for a masked one, for those who make the batches. @default none */
	readonly mask?: number;
	/** Of the first weights and the features. @default 0 */
	readonly seed?: number;
}

export type FullPerformerConfig = Required<Omit<PerformerConfig, 'mask'>> & Pick<PerformerConfig, 'mask'>;

const defaults = {
	dim: 128,
	layers: 3,
	heads: 4,
	mixer: 'performer',
	features: 256,
	featureKind: 'softmax',
	redrawEvery: 1000,
	causal: true,
	dropout: 0.1,
	norm: 'pre',
	seed: 0,
} as const;

/** With defaults. @throws ArgumentError if the numbers that no layer checks are not such */
export function checkedConfig(config: PerformerConfig): FullPerformerConfig {
	const { vocabulary, mask } = config;
	if (!Number.isInteger(vocabulary) || vocabulary < 1)
		throw new ArgumentError(`Performer: vocabulary is ${vocabulary}, expected an integer from 1`);
	if (mask !== undefined && !(Number.isInteger(mask) && mask >= 0 && mask < vocabulary))
		throw new ArgumentError(`Performer: mask is ${mask}, expected a token from 0 below ${vocabulary}`);
	const full = { ...defaults, ...config };
	return { hidden: 4 * full.dim, rope: full.mixer !== 'aaren', ...full };
}
