import { LayerCache } from '../cache/layer_cache.js';
import { Places } from '../cache/places.js';
import { checkPolicy, type Policy } from '../cache/policy.js';
import { ArgumentError } from '../errors.js';
import type { LlamaConfig } from '../io/pretrained.js';
import type { Llama } from './llama.js';

export interface SessionOptions {
	/** Which states are kept: one policy for all layers, or one for each. */
	readonly cache: Policy | readonly Policy[];
	/** B: sequences side by side. @default 1 */
	readonly batch?: number;
	/**
	 * Which positions a token and its states are given. `original`: how many tokens came before it in the sequence, as the TOVA paper; past the
	 * trained context a model fails. `cache`: its place among the states held, so that a stream may go on without end. @default 'original'
	 */
	readonly positions?: 'original' | 'cache';
	/** How keys and values are stored. f16 halves memory and the time to read it. @default 'f32' */
	readonly dtype?: 'f32' | 'f16';
	/**
	 * How `append` and `generate` take in several tokens at once. `stream`: states are evicted on the way, as if the tokens came one by one, so
	 * memory is bounded. `select`: full attention over all of them, then one selection, as the published TOVA code does; one sequence,
	 * and memory for all of its tokens while that lasts. `score` always streams. @default 'stream'
	 */
	readonly prefill?: 'stream' | 'select';
}

/** For calls that take time. */
export interface CallOptions {
	/** Stops after the chunk of tokens that is in work; the session goes on from there. */
	readonly signal?: AbortSignal;
	/** Told how much is done, from 0 to 1. */
	readonly onProgress?: (done: number) => void;
}

/** What a session is made of: for the files beside this. */
export interface Running {
	readonly policies: readonly Policy[];
	readonly caches: readonly LayerCache[];
	/** Tokens fed, by sequence. */
	readonly seen: Int32Array;
	/** Logits [B, V] of what follows; rows of sequences that nothing was fed to are NaN. */
	readonly logits: Float32Array;
	readonly places: Places | null;
	readonly prefill: 'stream' | 'select';
	/** Why its states cannot be trusted any more. */
	fault?: unknown;
}

/** Options with their defaults, checked. */
export interface Settled extends Required<Omit<SessionOptions, 'cache'>> {
	/** One a layer. */
	readonly policies: readonly Policy[];
}

/** @throws ArgumentError options that make no sense, or not together */
export function settle(options: SessionOptions, { layers }: LlamaConfig): Settled {
	if (typeof options !== 'object' || options === null)
		throw new ArgumentError(`session: options are ${options}, expected { cache: a policy }`);
	const { batch = 1, positions = 'original', dtype = 'f32', prefill = 'stream', cache } = options;
	if (!Number.isInteger(batch) || batch < 1 || batch > 2 ** 20) refuse('batch', batch, 'an integer from 1');
	if (positions !== 'original' && positions !== 'cache') refuse('positions', positions, "'original' or 'cache'");
	if (dtype !== 'f32' && dtype !== 'f16') refuse('dtype', dtype, "'f32' or 'f16'");
	if (prefill !== 'stream' && prefill !== 'select') refuse('prefill', prefill, "'stream' or 'select'");
	if (prefill === 'select' && batch !== 1) refuse('batch', batch, "1 with prefill: 'select'");
	const list = Array.isArray(cache) ? (cache as readonly Policy[]) : Array.from({ length: layers }, () => cache as Policy);
	if (list.length !== layers) refuse('cache', `${list.length} policies`, `one, or one for each of ${layers} layers`);
	const policies = list.map((policy) => {
		if (typeof policy !== 'object' || policy === null) refuse('cache', policy, 'a policy, as tova(512)');
		return checkPolicy('session: cache', policy);
	});
	if (prefill === 'select' && policies.some(({ score }) => typeof score === 'function'))
		refuse('prefill', prefill, "'stream' with a policy of one’s own");
	return { batch, positions, dtype, prefill, policies };
}

/** The state of a session that nothing was fed to. */
export function begin(model: Llama, { batch, positions, dtype, prefill, policies }: Settled): Running {
	const { heads, kvHeads, headDim, vocabulary, rope, slidingWindow } = model.config;
	const { device } = model;
	const places = positions === 'cache' ? new Places(rope, device).share() : null;
	const shape = { batch, heads, kvHeads, headDim, device, dtype, neighbours: rope.pairs === 'neighbours', places };
	return {
		policies,
		caches: policies.map((policy, i) => new LayerCache(i, policy, shape, slidingWindow[i] ?? null)),
		seen: new Int32Array(batch),
		logits: new Float32Array(batch * vocabulary).fill(NaN),
		places,
		prefill,
	};
}

function refuse(what: string, found: unknown, expected: string): never {
	throw new ArgumentError(`session: ${what} is ${String(found)}, expected ${expected}`);
}
