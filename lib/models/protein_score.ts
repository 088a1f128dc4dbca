import { noGrad } from '../autograd.js';
import { ArgumentError } from '../errors.js';
import { type FastaOptions, type FastaRecord, readFastaPieces } from '../io/fasta.js';
import { scope } from '../tensor.js';
import type { Performer } from './performer.js';
import { type ProteinWindows, question } from './protein_data.js';
import { modeOf } from './protein_model.js';
import { type ProteinScore, ProteinTally } from './protein_tally.js';
import { encodeProtein, proteinTokens } from './protein_tokens.js';

export interface ProteinScoreOptions {
	/** Of residues in what the model was trained on: what it is compared with. */
	readonly counts: ArrayLike<number>;
	/** Windows at a time. @default 16 */
	readonly batch?: number;
	/** The first so many windows only. @default all */
	readonly most?: number;
	readonly signal?: AbortSignal | undefined;
	/** Called with the share that is done. */
	readonly onProgress?: (done: number) => void;
}

/** Logits `[B · T, V]` of windows. */
function logitsOf(model: Performer, x: readonly Int32Array[]): Promise<Float32Array> {
	return noGrad(() => scope(() => ({ read: model.forward(x).read() }))).read as Promise<Float32Array>;
}

/** Lets Ctrl-C have its turn: small results are there at once, and nothing else would come in between. */
async function turn(signal: AbortSignal | undefined): Promise<void> {
	await new Promise(setImmediate);
	signal?.throwIfAborted();
}

/**
 * How well a model predicts what windows ask for.
 * @throws ArgumentError windows of another mode; `signal.reason`, untouched, when it is aborted
 */
export async function scoreWindows(model: Performer, windows: ProteinWindows, options: ProteinScoreOptions): Promise<ProteinScore> {
	const { counts, batch = 16, most = Infinity, signal, onProgress } = options;
	if (windows.mode !== modeOf(model))
		throw new ArgumentError(`scoreWindows: windows are ${windows.mode}, expected ${modeOf(model)} as the model`);
	const tally = new ProteinTally(counts);
	const length = Math.min(windows.length, most);
	for (let start = 0; start < length; start += batch) {
		await turn(signal);
		const indices = Array.from({ length: Math.min(batch, length - start) }, (_, i) => start + i);
		const { ids, targets } = windows.arrays(indices);
		const rows = indices.map((_, b) => ids.subarray(b * windows.window, (b + 1) * windows.window));
		tally.add(await logitsOf(model, rows), targets);
		onProgress?.((start + indices.length) / length);
	}
	return tally.score();
}

export interface ScoredProtein {
	readonly id: string;
	/** Of this record. */
	readonly tally: ProteinTally;
}

/** Streams of random numbers that records have for what is hidden; 0 and 1 are those of windows. */
const streams = 2 ** 32 - 2;

/**
 * How well a model predicts one record: `begin`, its residues and `end`, cut into windows of `context` tokens, each by itself. Masked:
 * the hidden residues of each window, drawn with the seed.
 * @param options.number of the record, which says what is hidden @param options.seed of what is hidden @default 0
 */
export async function scoreProtein(
	model: Performer,
	{ id, sequence }: FastaRecord,
	options: {
		readonly counts: ArrayLike<number>;
		readonly context: number;
		readonly number: number;
		readonly seed?: number;
		readonly signal?: AbortSignal;
	},
): Promise<ScoredProtein> {
	const { counts, context, number, seed = 0, signal } = options;
	if (!Number.isInteger(context) || context < 4) throw new ArgumentError(`scoreProtein: context is ${context}, expected an integer from 4`);
	const mode = modeOf(model);
	const all = new Int32Array(sequence.length + 2);
	all[0] = proteinTokens.begin;
	all.set(encodeProtein(sequence), 1);
	all[all.length - 1] = proteinTokens.end;
	// What follows the last residue is not asked for.
	const asking = mode === 'causal' ? all.length - 2 : all.length;
	const tally = new ProteinTally(counts);
	for (let start = 0, window = 0; start < asking; start += context, window++) {
		const T = Math.min(context, asking - start);
		const ids = new Int32Array(T);
		const targets = new Int32Array(T);
		question(mode, all.subarray(start, start + T + 1), ids, targets, { seed, example: window, stream: 2 + (number % streams) });
		if (targets.every((target) => target < 0)) continue;
		tally.add(await logitsOf(model, [ids]), targets);
		await turn(signal);
	}
	return { id, tally };
}

export interface StreamedProtein extends ScoredProtein {
	/** The largest that the state was. */
	readonly stateBytes: number;
	/** Of the model, without reading the file. */
	readonly seconds: number;
}

/**
 * The records of a FASTA file residue by residue, as they would arrive: the model says what comes, is told what came, and keeps nothing
 * but its state. Sequences may be of any length.
 * @param options.onResidues called after every 1,024 residues with how many there were in this record
 * @throws ArgumentError a model that is not causal; FormatError as `readFastaPieces`
 */
export async function* streamProteins(
	model: Performer,
	path: string,
	options: FastaOptions & {
		readonly counts: ArrayLike<number>;
		readonly wanted?: (id: string) => boolean;
		readonly onResidues?: (residues: number) => void;
	},
): AsyncGenerator<StreamedProtein, void> {
	const { counts, wanted = () => true, onResidues, signal } = options;
	if (modeOf(model) !== 'causal')
		throw new ArgumentError('streamProteins: the model is masked, expected a causal one (it must not know what follows)');
	let running: Stream | undefined;
	try {
		for await (const piece of readFastaPieces(path, options)) {
			if (piece.type === 'begin') running = wanted(piece.id) ? new Stream(model, piece.id, counts) : undefined;
			else if (!running) continue;
			else if (piece.type === 'residues') {
				const stream: Stream = running;
				for (const id of encodeProtein(piece.residues)) {
					await stream.take(id);
					if (stream.tally.residues % 1024) continue;
					onResidues?.(stream.tally.residues);
					await turn(signal);
				}
			} else {
				running.dispose();
				const { id, tally, stateBytes, seconds } = running;
				yield { id, tally, stateBytes, seconds };
			}
		}
	} finally {
		running?.dispose();
	}
}

/** One record on its way. */
class Stream {
	readonly id: string;
	readonly tally: ProteinTally;
	stateBytes = 0;
	seconds = 0;
	readonly #model: Performer;
	readonly #state;
	#last: number = proteinTokens.begin;

	constructor(model: Performer, id: string, counts: ArrayLike<number>) {
		this.id = id;
		this.tally = new ProteinTally(counts);
		this.#model = model;
		this.#state = model.initialState();
	}

	/** Predict a residue from those before, then learn which it was. */
	async take(id: number): Promise<void> {
		const started = performance.now();
		using logits = this.#model.forward([this.#last], this.#state);
		const numbers = await logits.read();
		this.seconds += (performance.now() - started) / 1000;
		this.tally.add(numbers, [id]);
		this.stateBytes = Math.max(this.stateBytes, this.#state.bytes);
		this.#last = id;
	}

	dispose(): void {
		this.#state.dispose();
	}
}
