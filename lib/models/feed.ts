import { synchronize } from '../device.js';
import type { Llama } from './llama.js';
import type { Activations } from './llama_pass.js';
import type { CallOptions, Running } from './session_options.js';

/** Rows of activations at a time: enough for weights to be used many times over, few enough that memory stays small. */
const CHUNK = 512;

/** A stretch of every sequence's tokens. */
export interface Chunk {
	/** Rows of its residual stream: T a sequence. */
	readonly activations: Activations;
	readonly tokens: number;
	/** How many of T each sequence brought, and how many it had brought before. */
	readonly lengths: Int32Array;
	readonly offsets: Int32Array;
}

/**
 * Feed lists of tokens, one a sequence, in chunks.
 * @param use what is done with each chunk: its rows are there until the next one
 */
export async function feedChunks(
	model: Llama,
	{ caches, policies, seen }: Running,
	positions: 'original' | 'cache',
	lists: readonly Int32Array[],
	select: boolean,
	{ signal, onProgress }: CallOptions,
	use: (chunk: Chunk) => Promise<void>,
): Promise<void> {
	const batch = lists.length;
	const one = policies.some(({ score }) => typeof score === 'function');
	const longest = Math.max(...lists.map(({ length }) => length));
	const most = one ? 1 : select ? longest : Math.max(1, Math.floor(CHUNK / batch));
	for (let done = 0; done < longest; ) {
		signal?.throwIfAborted();
		const tokens = Math.min(most, longest - done);
		const lengths = Int32Array.from(lists, ({ length }) => Math.max(0, Math.min(tokens, length - done)));
		const ids = new Int32Array(batch * tokens);
		for (const [b, list] of lists.entries()) ids.set(list.subarray(done, done + lengths[b]!), b * tokens);
		const ragged = lengths.some((length) => length !== tokens);
		const unturned = positions === 'cache';
		const activations = await model.run({
			ids,
			batch,
			seen: seen.slice(),
			lengths: ragged ? lengths : null,
			caches: [caches],
			unturned,
			select,
		});
		for (let b = 0; b < batch; b++) seen[b]! += lengths[b]!;
		try {
			await use({ activations, tokens, lengths, offsets: Int32Array.from(lists, ({ length }) => Math.min(done, length)) });
		} finally {
			model.release(activations);
		}
		done += tokens;
		if (done < longest) await synchronize(model.device);
		onProgress?.(done / longest);
	}
}

/** Feed tokens and keep the logits of what follows. */
export async function feed(
	model: Llama,
	running: Running,
	positions: 'original' | 'cache',
	lists: readonly Int32Array[],
	options: CallOptions,
): Promise<void> {
	const { vocabulary } = model.config;
	const select = running.prefill === 'select' && lists[0]!.length > 1;
	await feedChunks(model, running, positions, lists, select, options, async ({ activations, tokens, lengths, offsets }) => {
		const last = [...lists.keys()].filter((b) => lengths[b]! > 0 && offsets[b]! + lengths[b]! === lists[b]!.length);
		if (last.length === 0) return;
		const logits = model.logits(
			activations,
			Int32Array.from(last, (b) => b * tokens + lengths[b]! - 1),
		);
		const rows = await logits.read();
		logits.dispose();
		for (const [i, b] of last.entries()) running.logits.set(rows.subarray(i * vocabulary, (i + 1) * vocabulary), b * vocabulary);
	});
}

/** Feed one token to each of several sessions, in one pass, and keep each one's logits. */
export async function feedTogether(
	model: Llama,
	sessions: readonly Running[],
	positions: 'original' | 'cache',
	tokens: Int32Array,
): Promise<void> {
	const { vocabulary } = model.config;
	const activations = await model.run({
		ids: tokens,
		batch: sessions.length,
		seen: Int32Array.from(sessions, ({ seen }) => seen[0]!),
		lengths: null,
		caches: sessions.map(({ caches }) => caches),
		unturned: positions === 'cache',
		select: false,
	});
	try {
		for (const { seen } of sessions) seen[0]!++;
		const logits = model.logits(activations, Int32Array.from(sessions.keys()));
		const rows = await logits.read();
		logits.dispose();
		for (const [i, session] of sessions.entries()) session.logits.set(rows.subarray(i * vocabulary, (i + 1) * vocabulary));
	} finally {
		model.release(activations);
	}
}
