import type { Policy } from '../cache/policy.js';
import { ArgumentError, DeviceError, DisposedError } from '../errors.js';
import { type BatchPiece, type GenerateOptions, type Generation, generate, generateBatch, type Prompt } from '../generate/index.js';
import type { Resource } from '../tensor.js';
import { feed, feedTogether } from './feed.js';
import type { Llama } from './llama.js';
import { type Scored, scoreTokens } from './score_tokens.js';
import { begin, type CallOptions, type Running, type SessionOptions, settle } from './session_options.js';
import { restoreSession, snapshotSession } from './session_snapshot.js';

/**
 * A running sequence of a pretrained decoder (or B of them), as a recurrent network: `append` moves its state on, and the state never
 * holds more than the policy's S entries a layer.
 */
export class Session implements Resource {
	readonly model: Llama;
	readonly batch: number;
	readonly positions: 'original' | 'cache';
	readonly dtype: 'f32' | 'f16';
	readonly #running: Running;
	#busy = false;
	#disposed = false;

	/** Use `model.session()`, or `fork`. */
	constructor(model: Llama, options: SessionOptions, from?: Running) {
		const { batch, positions, dtype, prefill, policies } = settle(options, model.config);
		this.model = model;
		[this.batch, this.positions, this.dtype] = [batch, positions, dtype];
		from?.places?.share();
		this.#running = from ?? begin(model, { batch, positions, dtype, prefill, policies });
	}

	/** Tokens fed to the first sequence. */
	get position(): number {
		return this.#running.seen[0]!;
	}

	/** Tokens fed, by sequence. */
	get sequencePositions(): Int32Array {
		return this.#running.seen.slice();
	}

	/** States held a layer, of the sequence that holds most. */
	get states(): number {
		const longest = Math.max(...this.#running.seen);
		return Math.max(...this.#running.policies.map(({ size }) => Math.min(size, longest)));
	}

	/** Bytes of keys, values and what the policies know of them; what forks share counts for each. */
	get bytes(): number {
		return this.#disposed ? 0 : this.#running.caches.reduce((n, cache) => n + cache.bytes, 0);
	}

	get disposed(): boolean {
		return this.#disposed;
	}

	/**
	 * Feed tokens, in chunks. Memory never passes the policies' bounds: states are evicted on the way.
	 * @param tokens of the one sequence, or a list for each
	 * @throws ArgumentError a token that the vocabulary does not have; `signal.reason` when aborted: `position` says how far it came
	 */
	async append(tokens: ArrayLike<number> | readonly ArrayLike<number>[], options: CallOptions = {}): Promise<void> {
		const lists = this.#lists('append', tokens);
		const select = this.#running.prefill === 'select' && lists[0]!.length > 1;
		await this.#alone('append', () => feed(this.model, this.#running, this.positions, lists, select, options));
	}

	/** `append`, and the logits `[V]` of what follows (of B sequences `[B, V]`): the array is used again by the next call. */
	async next(tokens: ArrayLike<number> | readonly ArrayLike<number>[], options: CallOptions = {}): Promise<Float32Array> {
		await this.append(tokens, options);
		return this.#running.logits;
	}

	/**
	 * Go on from a prompt (and from everything fed before), piece by piece.
	 * @param prompt text, or tokens; '' goes on from where the session is
	 */
	generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
		this.#one('generate');
		return generate(this.#decoder(), this.model.tokenizer, prompt, options);
	}

	/** `generate` for each of at most B prompts, all in one pass a token. */
	generateBatch(prompts: readonly Prompt[], options: GenerateOptions = {}): Generation<BatchPiece> {
		return generateBatch(this.#decoder(), this.model.tokenizer, prompts, options);
	}

	/**
	 * How likely each token was given those before it, under strict streaming: every state is evicted when its time comes. Moves the
	 * session on.
	 * @returns nll[i] = −ln p(token i | those before it); of a sequence's first token NaN, as nothing came before
	 */
	async score(text: string | ArrayLike<number>, options: CallOptions = {}): Promise<Scored> {
		this.#one('score');
		const tokens = typeof text === 'string' ? this.model.tokenizer.encode(text, { special: this.position === 0 }) : text;
		const [list] = this.#lists('score', tokens);
		return this.#alone('score', () => scoreTokens(this.model, this.#running, this.positions, list!, options));
	}

	/**
	 * Original positions of the states held now, ascending.
	 * @param kvHead matters only where each key-value head keeps its own. @default 0
	 */
	async kept(layer: number, kvHead = 0, sequence = 0): Promise<Int32Array> {
		this.#check();
		const { caches, seen } = this.#running;
		const { kvHeads } = this.model.config;
		const within = (what: string, value: number, end: number) => {
			if (!Number.isInteger(value) || value < 0 || value >= end)
				throw new ArgumentError(`kept: ${what} is ${value}, expected 0 to ${end - 1}`);
		};
		within('layer', layer, caches.length);
		within('kvHead', kvHead, kvHeads);
		within('sequence', sequence, this.batch);
		const cache = caches[layer]!;
		const places = (await cache.tensors.positions.read()) as unknown as Int32Array;
		const chooser = sequence * cache.choosers + (cache.choosers > 1 ? kvHead : 0);
		const first = chooser * cache.slots;
		return places.slice(first, first + Math.min(seen[sequence]!, cache.slots)).sort();
	}

	/** A session that goes its own way from here. States are shared until one of the two writes. */
	fork(): Session {
		this.#check();
		this.#idle('fork');
		const { policies, caches, seen, logits, places, prefill } = this.#running;
		const from = { policies, places, prefill, caches: caches.map((cache) => cache.fork()), seen: seen.slice(), logits: logits.slice() };
		return new Session(this.model, { cache: policies, batch: this.batch, positions: this.positions, dtype: this.dtype }, from);
	}

	/** The session as bytes: versioned, checksummed, bound to its model. */
	async snapshot(): Promise<Uint8Array> {
		return this.#alone('snapshot', () => snapshotSession(this, this.#running));
	}

	/**
	 * A session from its snapshot.
	 * @param options.cache the policies that it ran under; those that are functions cannot be stored. @default as stored
	 * @throws FormatError the bytes are not a whole and unchanged snapshot of a session of this very model
	 */
	static restore(model: Llama, blob: Uint8Array, options: { readonly cache?: Policy | readonly Policy[] } = {}): Promise<Session> {
		return restoreSession(model, blob, options.cache, (made, fill) => {
			const session = new Session(model, made);
			try {
				fill(session.#running);
			} catch (error) {
				session.dispose();
				throw error;
			}
			return session;
		});
	}

	/**
	 * One token for each of several sessions of one model, in one pass: each weight is read once for all of them.
	 * @param sessions of one sequence each, no two the same, all with the same `positions`
	 * @returns logits `[V]` of each, as its own `next` gives them
	 */
	static async nextTogether(sessions: readonly Session[], tokens: ArrayLike<number>): Promise<Float32Array[]> {
		checkTogether(sessions, tokens.length);
		const checked = sessions.map((session, i) => {
			session.#check();
			session.#idle('nextTogether');
			return session.#lists('nextTogether', [tokens[i]!])[0]![0]!;
		});
		for (const session of sessions) session.#busy = true;
		try {
			const { model, positions } = sessions[0]!;
			await feedTogether(
				model,
				sessions.map((session) => session.#running),
				positions,
				Int32Array.from(checked),
			);
			return sessions.map((session) => session.#running.logits);
		} finally {
			for (const session of sessions) session.#busy = false;
		}
	}

	dispose(): void {
		if (this.#disposed) return;
		this.#disposed = true;
		const { caches, places } = this.#running;
		for (const cache of caches) cache.dispose();
		places?.release();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}

	#decoder() {
		const session = this;
		return {
			batch: this.batch,
			vocabulary: this.model.config.vocabulary,
			eos: this.model.config.eos,
			get position() {
				return session.position;
			},
			get positions() {
				return session.#running.seen;
			},
			next: (tokens: ArrayLike<number> | readonly ArrayLike<number>[], options?: { readonly signal?: AbortSignal }) =>
				this.next(tokens, options),
		};
	}

	/** One call at a time: the state moves with each. */
	async #alone<R>(where: string, run: () => Promise<R>): Promise<R> {
		this.#check();
		this.#idle(where);
		this.#busy = true;
		try {
			return await run();
		} finally {
			this.#busy = false;
		}
	}

	#idle(where: string): void {
		if (this.#busy) throw new ArgumentError(`session.${where}: another call is still running, expected it to be awaited first`);
	}

	#one(where: string): void {
		if (this.batch !== 1) throw new ArgumentError(`session.${where}: the session has ${this.batch} sequences, expected 1`);
	}

	/** Tokens of each sequence, checked. */
	#lists(where: string, tokens: ArrayLike<number> | readonly ArrayLike<number>[]): readonly Int32Array[] {
		const nested = Array.isArray(tokens) && tokens.length > 0 && typeof tokens[0] === 'object';
		const lists = (nested ? tokens : this.batch === 1 ? [tokens] : (tokens ?? [])) as readonly ArrayLike<number>[];
		if (lists.length !== this.batch || lists.some((list) => typeof list !== 'object' || typeof list?.length !== 'number')) {
			throw new ArgumentError(`session.${where}: found tokens of ${lists.length} sequences, expected ${this.batch} lists`);
		}
		const { vocabulary } = this.model.config;
		return lists.map((list, b) => {
			const checked = new Int32Array(list.length);
			for (let i = 0; i < list.length; i++) {
				const token = list[i]!;
				if (!Number.isInteger(token) || token < 0 || token >= vocabulary) {
					throw new ArgumentError(
						`session.${where}: token ${i} of sequence ${b} is ${token}, expected an integer from 0 to ${vocabulary - 1}`,
					);
				}
				checked[i] = token;
			}
			return checked;
		});
	}

	#check(): void {
		if (this.#disposed) throw new DisposedError('this session has been disposed of');
		const { fault } = this.#running;
		if (fault === undefined) return;
		const reason = fault instanceof Error ? fault.message : String(fault);
		throw new DeviceError(`this session cannot go on: a step failed when some layers had taken it and others had not (${reason})`, {
			cause: fault,
		});
	}
}

function checkTogether(sessions: readonly Session[], tokens: number): void {
	const refuse = (found: string, expected: string): never => {
		throw new ArgumentError(`Session.nextTogether: found ${found}, expected ${expected}`);
	};
	const [first] = sessions;
	if (!first) throw new ArgumentError('Session.nextTogether: found no sessions, expected at least one');
	if (tokens !== sessions.length) refuse(`${tokens} tokens for ${sessions.length} sessions`, 'one for each');
	if (new Set(sessions).size !== sessions.length) refuse('a session twice', 'each once');
	for (const { model, batch, positions } of sessions) {
		if (model !== first.model) refuse('sessions of two models', 'one model');
		if (batch !== 1) refuse(`a session of ${batch} sequences`, '1');
		if (positions !== first.positions) refuse(`positions ${positions} and ${first.positions}`, 'the same in all sessions');
	}
}
