import type { Keeper, Kept } from '../train/checkpoint.js';
import type { Forecaster } from './forecaster.js';
import type { Score } from './score.js';

interface Note {
	readonly seconds: number;
	readonly epoch: number;
	readonly validation: Score | null;
}

/** The weights of the epoch that predicted the validation part best so far; a checkpoint keeps them and the time that they took. */
export class Best implements Keeper {
	/** From 1; 0: none yet. */
	epoch = 0;
	validation: Score | undefined;
	#weights: ReadonlyMap<string, Float32Array> = new Map();
	#before = 0;
	readonly #started = performance.now();

	/** Of training, those before a checkpoint included. */
	get seconds(): number {
		return this.#before + (performance.now() - this.#started) / 1000;
	}

	/** Look at the model as it is after an epoch. */
	async offer(model: Forecaster, epoch: number, validation: Score): Promise<void> {
		if (this.validation && !(validation.mse < this.validation.mse)) return;
		const read = [...model.parameters()].map(async ([name, parameter]) => [name, await parameter.read()] as const);
		this.#weights = new Map(await Promise.all(read));
		this.epoch = epoch;
		this.validation = validation;
	}

	/** Give the model the best weights. */
	apply(model: Forecaster): void {
		for (const [name, parameter] of model.parameters()) parameter.write(this.#weights.get(name)!);
	}

	save(): Kept {
		const note: Note = { seconds: this.seconds, epoch: this.epoch, validation: this.validation ?? null };
		return { note, numbers: this.#weights };
	}

	restore({ note, numbers }: Kept): void {
		const { seconds, epoch, validation } = note as Note;
		this.#before = seconds;
		this.epoch = epoch;
		this.validation = validation ?? undefined;
		this.#weights = numbers;
	}
}
