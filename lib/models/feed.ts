import { ArgumentError, DisposedError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { Llama } from './llama.js';
import type { Activations } from './llama_pass.js';
import type { CallOptions, Running } from './session_options.js';

/** Rows of activations at a time: enough for weights to be used many times over, few enough that memory stays small. */
const CHUNK = 512;

/** A stretch of the tokens of sequences that are fed together. */
export interface Chunk {
	/** Rows of the residual stream: `tokens` a sequence. They are there until the call returns. */
	readonly activations: Activations;
	readonly tokens: number;
	/** Where in the first list it begins. */
	readonly offset: number;
}

/**
 * Feed lists of tokens, one a sequence, in chunks. After each chunk `running` has its logits and says how far it is, so that it can
 * be left there.
 * @param select whether all tokens are taken in before one selection (and so at once)
 * @param use what else is to be made of each chunk: queues work, and returns what is to be done when it has run
 */
export async function feed(
	model: Llama,
	running: Running,
	positions: 'original' | 'cache',
	lists: readonly Int32Array[],
	select: boolean,
	{ signal, onProgress }: CallOptions,
	use?: (chunk: Chunk) => () => Promise<void>,
): Promise<void> {
	const { caches, policies, seen } = running;
	const batch = lists.length;
	for (const [b, { length }] of lists.entries()) {
		if (seen[b]! + length >= 2 ** 31) throw new ArgumentError(`session: ${seen[b]! + length} tokens in all, expected fewer than 2³¹`);
	}
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
		const fed = [...lists.keys()].filter((b) => lengths[b]! > 0);
		const pass = {
			ids,
			batch,
			seen: seen.slice(),
			lengths: ragged ? lengths : null,
			caches: [caches],
			unturned: positions === 'cache',
			select,
		};
		await moving([running], async () => {
			const [logits, after] = await model.run(pass, (activations) => [
				model.logits(
					activations,
					Int32Array.from(fed, (b) => b * tokens + lengths[b]! - 1),
				),
				use?.({ activations, tokens, offset: done }),
			]);
			await keep(
				logits,
				fed.map((b) => ({ running, row: b })),
			);
			await after?.();
		});
		for (let b = 0; b < batch; b++) seen[b]! += lengths[b]!;
		done += tokens;
		onProgress?.(done / longest);
	}
}

/** Feed one token to each of several sessions, in one pass, and keep each one's logits. */
export async function feedTogether(
	model: Llama,
	sessions: readonly Running[],
	positions: 'original' | 'cache',
	tokens: Int32Array,
): Promise<void> {
	const seen = Int32Array.from(sessions, (running) => running.seen[0]!);
	const caches = sessions.map((running) => running.caches);
	const pass = { ids: tokens, batch: sessions.length, seen, lengths: null, caches, unturned: positions === 'cache', select: false };
	await moving(sessions, async () => {
		const logits = await model.run(pass, (activations) => model.logits(activations, Int32Array.from(sessions.keys())));
		await keep(
			logits,
			sessions.map((running) => ({ running, row: 0 })),
		);
	});
	for (const running of sessions) running.seen[0]!++;
}

/** Logits `[rows, V]` to where their sequences keep them. Disposes of the tensor. */
async function keep(logits: Tensor, places: readonly { readonly running: Running; readonly row: number }[]): Promise<void> {
	const vocabulary = logits.shape[1]!;
	const rows = await logits.read();
	logits.dispose();
	for (const [i, { running, row }] of places.entries()) {
		running.logits.set(rows.subarray(i * vocabulary, (i + 1) * vocabulary), row * vocabulary);
	}
}

/** What moves states: if it fails, some layers have moved and others have not, and the sessions say so from then on. */
async function moving(sessions: readonly Running[], run: () => Promise<void>): Promise<void> {
	try {
		await run();
	} catch (error) {
		// A model that was disposed of says so by itself, before anything moves.
		if (!(error instanceof DisposedError)) for (const running of sessions) running.fault = error;
		throw error;
	}
}
