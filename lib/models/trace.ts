import type { Policy } from '../cache/policy.js';
import { ArgumentError } from '../errors.js';
import type { Session } from './session.js';

/** How long each state was held by one set of entries: a layer's, or one key-value head's where each keeps its own. */
export interface Held {
	readonly layer: number;
	/** null: all heads of the layer keep the same states. */
	readonly kvHead: number | null;
	/**
	 * `[T]`: position p is held after the steps p to `left[p]` − 1. It is T where it is held at the end, and p where the state went as soon as
	 * it came.
	 */
	readonly left: Int32Array;
}

interface Watched {
	readonly layer: number;
	readonly kvHead: number | null;
	/** Positions held after the last step, ascending. */
	held: Int32Array;
	/** As `Held.left`, of what has gone. */
	readonly left: Map<number, number>;
}

/**
 * Which states a session keeps, step by step: one number a position, layer and set of entries, as a state that has gone does not
 * come back. Step t is token t's.
 * @example
 * const trace = new Trace(session, policy);
 * for (const token of tokens) { await session.append([token]); await trace.look(); }
 * @see Oren et al. 2024, "Transformers are multi-state RNNs", figure 5
 */
export class Trace {
	readonly #session: Session;
	readonly #watched: readonly Watched[];
	#steps = 0;

	/**
	 * @param session of one sequence, nothing fed to it
	 * @param cache its policies, as it was given them
	 * @throws ArgumentError
	 */
	constructor(session: Session, cache: Policy | readonly Policy[]) {
		if (session.batch !== 1) throw new ArgumentError(`trace: the session has ${session.batch} sequences, expected 1`);
		if (session.position !== 0) throw new ArgumentError(`trace: the session has been fed ${session.position} tokens, expected none yet`);
		const { layers, kvHeads } = session.model.config;
		this.#session = session;
		this.#watched = Array.from({ length: layers }, (_, layer) => {
			const { heads } = Array.isArray(cache) ? (cache as readonly Policy[])[layer]! : (cache as Policy);
			const own = heads === 'own' ? Array.from({ length: kvHeads }, (_, kvHead) => kvHead) : [null];
			return own.map((kvHead): Watched => ({ layer, kvHead, held: new Int32Array(0), left: new Map() }));
		}).flat();
	}

	/** T: tokens fed when it looked last. */
	get steps(): number {
		return this.#steps;
	}

	/**
	 * Look at what is held now. Call it after each token; where several were fed at once, what has gone counts as gone with the last of
	 * them, which is exact where that is when states are chosen (`prefill: 'select'`).
	 */
	async look(): Promise<void> {
		const before = this.#steps;
		const steps = this.#session.position;
		if (steps === before) return;
		for (const watched of this.#watched) {
			const kept = await this.#session.kept(watched.layer, watched.kvHead ?? 0);
			let next = 0;
			const check = (position: number): void => {
				if (kept[next] === position) next++;
				else watched.left.set(position, steps - 1);
			};
			for (const position of watched.held) check(position);
			for (let position = before; position < steps; position++) check(position);
			watched.held = kept;
		}
		this.#steps = steps;
	}

	/** What was seen so far, by layer and key-value head. */
	held(): Held[] {
		return this.#watched.map(({ layer, kvHead, left }) => ({
			layer,
			kvHead,
			left: Int32Array.from({ length: this.#steps }, (_, position) => left.get(position) ?? this.#steps),
		}));
	}
}
