import { FormatError } from '../errors.js';
import type { Keeper, Kept } from '../train/checkpoint.js';
import { checkedWholes, setWholes, type Wholes, wholesOf } from '../train/weights.js';
import type { Forecaster } from './forecaster.js';
import type { Score } from './score.js';

interface Note {
	readonly seconds: number;
	readonly epoch: number;
	readonly validation: Score | null;
	readonly wholes?: Wholes | undefined;
}

/** The weights of the epoch that predicted the validation part best so far; a checkpoint keeps them and the time that they took. */
export class Best implements Keeper {
	/** From 1; 0: none yet. */
	epoch = 0;
	/** Its error is a finite number. */
	validation: Score | undefined;
	readonly #model: Forecaster;
	#weights: ReadonlyMap<string, Float32Array> = new Map();
	#wholes: Wholes | undefined;
	#before = 0;
	readonly #started = performance.now();

	constructor(model: Forecaster) {
		this.#model = model;
	}

	/** Of training, those before a checkpoint included. */
	get seconds(): number {
		return this.#before + (performance.now() - this.#started) / 1000;
	}

	/** Look at the model as it is after an epoch. */
	async offer(epoch: number, validation: Score): Promise<void> {
		// Written so that NaN is never the best, not even of none.
		if (!(validation.mse < (this.validation?.mse ?? Infinity))) return;
		const read = [...this.#model.parameters()].map(async ([name, parameter]) => [name, await parameter.read()] as const);
		this.#weights = new Map(await Promise.all(read));
		this.#wholes = wholesOf(this.#model);
		this.epoch = epoch;
		this.validation = validation;
	}

	/** Give the model the best weights. */
	apply(): void {
		for (const [name, parameter] of this.#model.parameters()) parameter.write(this.#weights.get(name)!);
		setWholes(this.#model, this.#wholes);
	}

	save(): Kept {
		const note: Note = { seconds: this.seconds, epoch: this.epoch, validation: this.validation ?? null, wholes: this.#wholes };
		return { note, numbers: this.#weights };
	}

	restore({ note, numbers }: Kept, path: string): void {
		const { seconds, epoch, validation, wholes } = checked(path, note);
		for (const [name, { size }] of validation ? this.#model.parameters() : []) {
			const found = numbers.get(name)?.length ?? 'no';
			if (found !== size) throw new FormatError(path, `\`k.${name}\` has ${found} numbers, expected ${size}`);
		}
		this.#wholes = validation ? checkedWholes(path, this.#model, wholes) : undefined;
		this.#before = seconds;
		this.epoch = epoch;
		this.validation = validation ?? undefined;
		this.#weights = numbers;
	}
}

function checked(path: string, note: unknown): Note {
	const { seconds, epoch, validation } = (note ?? {}) as Partial<Note>;
	const refuse = (name: string, found: unknown, expected: string) =>
		new FormatError(path, `the checkpoint's \`${name}\` is ${JSON.stringify(found) ?? 'nothing'}, expected ${expected}`);
	if (!Number.isFinite(seconds)) throw refuse('seconds', seconds, 'a number');
	if (!Number.isInteger(epoch)) throw refuse('epoch', epoch, 'an integer');
	if (validation !== null && !Number.isFinite(validation?.mse))
		throw refuse('validation', validation, 'null or errors with a finite `mse`');
	return note as Note;
}
