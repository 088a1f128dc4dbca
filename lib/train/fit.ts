import { ArgumentError } from '../errors.js';
import type { Module } from '../layers/module.js';
import { Random } from '../random.js';
import { scope, type Tensor } from '../tensor.js';
import { AdamW } from './adamw.js';
import { type Checkpoint, loadCheckpoint, saveCheckpoint } from './checkpoint.js';
import { type Schedule, type ScheduleName, schedule } from './schedule.js';

/** What a step learns from. The tensors are freed after the step. */
export interface Batch {
	readonly x: Tensor;
	readonly y: Tensor;
}

/** Examples by number. What a batch of them is, is between the data and the model. */
export interface Dataset<B = Batch> {
	readonly length: number;
	/** @param indices which examples, each in [0, length) */
	batch(indices: readonly number[]): B;
}

/** A model that says how wrong it is: the mean over the examples of a batch, a scalar on the tape. */
export type Trainable<B = Batch> = Module & { loss(batch: B): Tensor };

export interface FitOptions {
	readonly epochs: number;
	/** Examples a step. The last step of an epoch takes what is left. */
	readonly batch: number;
	/** Learning rate that the schedule starts from. */
	readonly rate: number;
	/** @default 'constant' */
	readonly schedule?: ScheduleName | Schedule;
	/** Steps over which the rate rises linearly. @default 0 */
	readonly warmup?: number;
	/** The most that the norm of all gradients together may be; 0: no limit. @default 0 */
	readonly clip?: number;
	/** Decoupled weight decay of matrices. @default 0.01 */
	readonly decay?: number;
	/** Of the order of examples and of dropout. The same seed gives the same bits on the same machine with as many threads. @default 0 */
	readonly seed?: number;
	/** Steps between two reports; the end of an epoch is always reported. @default 10 */
	readonly every?: number;
	readonly signal?: AbortSignal | undefined;
	/** Where to write model, optimiser and position to, and go on from if it is there. @default none */
	readonly checkpoint?: Checkpoint | undefined;
}

export interface Progress {
	/** From 1. */
	readonly epoch: number;
	readonly epochs: number;
	/** Steps taken, over all epochs. */
	readonly step: number;
	/** Steps in all. */
	readonly steps: number;
	/** Mean over the steps since the last report. */
	readonly loss: number;
	/** Learning rate of the last step. */
	readonly rate: number;
	/** Since the start of this call. */
	readonly seconds: number;
	/** Whether an epoch ends here. */
	readonly epochEnd: boolean;
}

/** The order of examples in an epoch depends on the seed and the epoch alone: a resumed run need not replay the ones before. */
function shuffled(length: number, seed: number, epoch: number): Uint32Array {
	const order = Uint32Array.from({ length }, (_, i) => i);
	return new Random(seed * 65_537 + epoch).shuffle(order);
}

function checked(data: Dataset<unknown>, options: FitOptions) {
	const whole = { length: data.length, epochs: options.epochs, batch: options.batch, every: options.every ?? 10 };
	for (const [name, value] of Object.entries(whole)) {
		if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`fit: ${name} is ${value}, expected an integer from 1`);
	}
	const seed = options.seed ?? 0;
	if (!Number.isSafeInteger(seed) || seed < 0 || seed >= 2 ** 32)
		throw new ArgumentError(`fit: seed is ${seed}, expected an integer in [0, 2³²)`);
	return { every: whole.every, seed, steps: options.epochs * Math.ceil(data.length / options.batch) };
}

/**
 * Train a model. Nothing happens until the generator is asked for; it reports every few steps and at each epoch's end, and
 * between reports the caller may do as it likes with the model (evaluate it, save it). Leaving the loop, or an error, stops
 * the training and leaves the model as the last step left it, ready to be used.
 *
 * @example for await (const { epoch, loss } of fit(model, data, { epochs: 10, batch: 32, rate: 1e-3 })) console.log(epoch, loss);
 * @throws `signal.reason`, untouched, when it is aborted; an error when the loss is no longer finite
 */
export async function* fit<B>(model: Trainable<B>, data: Dataset<B>, options: FitOptions): AsyncGenerator<Progress, void> {
	const { every, seed, steps } = checked(data, options);
	const { epochs, batch, rate, signal, checkpoint } = options;
	signal?.throwIfAborted();
	const factor = schedule(options.schedule ?? 'constant', options.warmup);
	using optimizer = new AdamW(model.parameters(), { rate, clip: options.clip ?? 0, decay: options.decay ?? 0.01 });
	let step = checkpoint ? await loadCheckpoint(checkpoint, model, optimizer, { seed, steps, batch }) : 0;
	const started = performance.now();
	const perEpoch = steps / epochs;
	let order: { readonly epoch: number; readonly of: Uint32Array } | undefined;
	// One step runs while the next is being queued; not more, or the queue would hold the memory of many steps.
	let running: Running | undefined;
	const losses: number[] = [];
	const settle = async (started: Running | undefined) => {
		const [loss] = (await started) ?? [];
		if (loss?.status === 'rejected') throw loss.reason;
		if (!loss) return;
		const value = loss.value[0]!;
		if (!Number.isFinite(value))
			throw new Error(`fit: the loss is ${value} near step ${step}, expected a finite number (a lower rate or clip may help)`);
		losses.push(value);
	};

	try {
		while (step < steps) {
			const epoch = Math.floor(step / perEpoch);
			if (order?.epoch !== epoch) order = { epoch, of: shuffled(data.length, seed, epoch) };
			const start = (step % perEpoch) * batch;
			const stepRate = rate * factor({ step, steps, epoch });
			model.setTraining(true, (seed * 31 + step) % 2 ** 32);
			const before = running;
			running = takeStep(model, optimizer, data, order.of.subarray(start, start + batch), stepRate);
			await settle(before);
			step++;
			const epochEnd = step % perEpoch === 0;
			if (epochEnd || step % every === 0) {
				await settle(running);
				running = undefined;
				const loss = losses.reduce((sum, value) => sum + value, 0) / losses.length;
				losses.length = 0;
				model.setTraining(false);
				yield { epoch: epoch + 1, epochs, step, steps, loss, rate: stepRate, seconds: (performance.now() - started) / 1000, epochEnd };
			}
			// After the report: what the caller makes of it (how well the epoch does) belongs to the checkpoint of the step.
			if (checkpoint && (step % checkpoint.every === 0 || step === steps || signal?.aborted)) {
				await settle(running);
				running = undefined;
				await saveCheckpoint(checkpoint, model, optimizer, { seed, steps, batch });
			}
			signal?.throwIfAborted();
		}
	} finally {
		model.setTraining(false);
		optimizer.clear();
	}
}

/** The loss of a queued step, when it is there. Never rejects: an error waits until it is asked for. */
type Running = Promise<[PromiseSettledResult<Float32Array>]>;

function takeStep<B>(model: Trainable<B>, optimizer: AdamW, data: Dataset<B>, indices: Uint32Array, rate: number): Running {
	return scope(() => {
		const loss = model.loss(data.batch([...indices]));
		loss.backward();
		optimizer.step(rate);
		return { done: Promise.allSettled([loss.read()]) };
	}).done;
}
