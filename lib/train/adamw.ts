import { binding } from '../binding.js';
import { ArgumentError, DisposedError, FormatError } from '../errors.js';
import { adamw, sumSquares } from '../ops/optimizer.js';
import { zeros } from '../ops/zeros.js';
import { persist, type Resource, type Tensor } from '../tensor.js';

export interface AdamWOptions {
	/** Learning rate, unless a step is given another. @default 1e-3 */
	readonly rate?: number;
	/** @default [0.9, 0.999] */
	readonly betas?: readonly [number, number];
	/** @default 1e-8 */
	readonly epsilon?: number;
	/** Decoupled weight decay. Only matrices decay: biases, gains and single vectors do not. @default 0.01 */
	readonly decay?: number;
	/** The most that the norm of all gradients together may be; larger ones are scaled down to it. 0: no limit. @default 0 */
	readonly clip?: number;
}

/** Running means of one parameter's gradient and of its square. */
interface Moments {
	readonly m: Tensor;
	readonly v: Tensor;
}

/**
 * AdamW (Loshchilov & Hutter 2019). Everything stays on the device: clipping needs the norm of all gradients, which the step
 * reads where it lies.
 */
export class AdamW implements Resource {
	readonly #parameters: ReadonlyMap<string, Tensor>;
	readonly #moments = new Map<string, Moments>();
	readonly #total: Tensor;
	readonly #options: Required<AdamWOptions>;
	#steps = 0;
	#disposed = false;

	/** @param parameters by name, all on one device; their `grad` is what a step uses */
	constructor(parameters: ReadonlyMap<string, Tensor>, options: AdamWOptions = {}) {
		const { rate = 1e-3, betas = [0.9, 0.999], epsilon = 1e-8, decay = 0.01, clip = 0 } = options;
		for (const [name, value] of Object.entries({ rate, epsilon, decay, clip })) {
			if (!(Number.isFinite(value) && value >= 0)) throw new ArgumentError(`AdamW: ${name} is ${value}, expected a number from 0`);
		}
		if (!betas.every((beta) => beta >= 0 && beta < 1))
			throw new ArgumentError(`AdamW: betas are ${betas.join(', ')}, expected two numbers in [0, 1)`);
		const [first] = parameters.values();
		if (!first) throw new ArgumentError('AdamW: found no parameters, expected at least one');
		this.#parameters = parameters;
		this.#options = { rate, betas, epsilon, decay, clip };
		this.#total = persist(zeros([1], first.device));
		for (const [name, { shape, device }] of parameters)
			this.#moments.set(name, { m: persist(zeros(shape, device)), v: persist(zeros(shape, device)) });
	}

	/** Steps taken so far. */
	get steps(): number {
		return this.#steps;
	}

	/** Bytes of the moments: twice those of the parameters. */
	get bytes(): number {
		let n = this.#total.bytes;
		for (const { m, v } of this.#moments.values()) n += m.bytes + v.bytes;
		return n;
	}

	get disposed(): boolean {
		return this.#disposed;
	}

	/**
	 * Move every parameter that has a gradient by it, and free the gradients.
	 * @param rate for this step @default the optimiser's
	 */
	step(rate: number = this.#options.rate): void {
		if (this.#disposed) throw new DisposedError('AdamW has been disposed of');
		const { betas, epsilon, decay, clip } = this.#options;
		const total = clip > 0 ? this.#total : null;
		if (total) {
			binding.fill(total.buffer, 0, 1);
			for (const { grad } of this.#parameters.values()) if (grad) sumSquares(grad, total);
		}
		this.#steps++;
		for (const [name, parameter] of this.#parameters) {
			const { grad } = parameter;
			if (!grad) continue;
			const { m, v } = this.#moments.get(name)!;
			const own = parameter.shape.length > 1 ? decay : 0;
			adamw(parameter, grad, m, v, { rate, step: this.#steps, beta1: betas[0], beta2: betas[1], epsilon, decay: own, clip, total });
			parameter.version++;
		}
		this.clear();
	}

	/** Free the gradients without moving. */
	clear(): void {
		for (const parameter of this.#parameters.values()) {
			parameter.grad?.dispose();
			parameter.grad = null;
		}
	}

	/** The moments by name (`m.` or `v.` and the parameter's): what a checkpoint keeps. They are the optimiser's own. */
	state(): Map<string, Tensor> {
		const state = new Map<string, Tensor>();
		for (const [name, { m, v }] of this.#moments) state.set(`m.${name}`, m).set(`v.${name}`, v);
		return state;
	}

	/** Go on as after `steps` steps that left these moments. @param read gives the numbers of a name in `state()` */
	async restore(steps: number, read: (name: string) => Promise<Float32Array>): Promise<void> {
		if (!Number.isSafeInteger(steps) || steps < 0) throw new FormatError('optimizer', `steps is ${steps}, expected an integer from 0`);
		for (const [name, moment] of this.state()) moment.write(await read(name));
		this.#steps = steps;
	}

	dispose(): void {
		if (this.#disposed) return;
		this.#disposed = true;
		this.#total.dispose();
		for (const { m, v } of this.#moments.values()) {
			m.dispose();
			v.dispose();
		}
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}
