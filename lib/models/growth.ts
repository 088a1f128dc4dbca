import type { DeviceName } from '../device.js';
import { type MixerName, Stack } from '../layers/block.js';
import type { State } from '../layers/state.js';
import { Random } from '../random.js';
import { type Resource, tensor } from '../tensor.js';

export interface GrowthOptions {
	readonly dim: number;
	readonly heads: number;
	readonly layers: number;
	readonly seed: number;
	readonly device: DeviceName;
}

export interface GrowthPoint {
	readonly tokens: number;
	/** Held by the state. */
	readonly bytes: number;
	/** Since the start of the stream: of each piece, the median step times its steps, so that what other programs do meanwhile does not count. */
	readonly seconds: number;
	/** The same by the clock. */
	readonly wallSeconds: number;
}

/** Steps before the first that is timed, on a state of their own: for the compiler and the caches. */
const warmup = 300;

/** A stream of tokens fed to a stack one by one: how its memory and time grow. Tokens are drawn from a seed. */
export class Growth implements Resource {
	readonly points: GrowthPoint[] = [];
	readonly parameters: number;
	readonly #stack: Stack;
	readonly #state: State;
	/** A few tokens in turn do: what they say makes no difference to memory and time. */
	readonly #inputs: Float32Array[];
	readonly #device: DeviceName;

	constructor(mixer: MixerName, { dim, heads, layers, seed, device }: GrowthOptions) {
		this.#stack = new Stack(layers, { mixer, dim, heads, seed, device, norm: 'pre' });
		this.#state = this.#stack.initialState({ batch: 1 });
		this.parameters = this.#stack.parameterCount;
		this.#device = device;
		const random = new Random(seed);
		this.#inputs = Array.from({ length: 16 }, () => Float32Array.from({ length: dim }, () => random.normal()));
	}

	get bytes(): number {
		return this.#stack.bytes + this.#state.bytes;
	}

	get disposed(): boolean {
		return this.#state.disposed;
	}

	/** Go on to this many tokens and add a point. */
	async advance(tokens: number): Promise<void> {
		if (this.points.length === 0) {
			using trial = this.#stack.initialState({ batch: 1 });
			for (let t = 0; t < warmup; t++) await this.#step(t, trial);
		}
		const before = this.points.at(-1) ?? { seconds: 0, wallSeconds: 0 };
		const times: number[] = [];
		for (let t = this.#state.length; t < tokens; t++) times.push(await this.#step(t, this.#state));
		const wall = times.reduce((sum, time) => sum + time, 0);
		const median = times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;
		this.points.push({
			tokens,
			bytes: this.#state.bytes,
			seconds: before.seconds + median * times.length,
			wallSeconds: before.wallSeconds + wall,
		});
	}

	/** @returns seconds */
	async #step(t: number, state: State): Promise<number> {
		using x = tensor(this.#inputs[t % this.#inputs.length]!, [1, 1, this.#inputs[0]!.length], { device: this.#device });
		const began = performance.now();
		using y = this.#stack.forward(x, state);
		await y.read();
		return (performance.now() - began) / 1000;
	}

	dispose(): void {
		this.#state.dispose();
		this.#stack.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}

/** The power of x that y grows with: the slope of log y over log x, by least squares. */
export function exponent(points: readonly (readonly [number, number])[]): number {
	const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
	const mean = (of: (point: readonly [number, number]) => number) => logs.reduce((sum, point) => sum + of(point), 0) / logs.length;
	const mx = mean(([x]) => x);
	const my = mean(([, y]) => y);
	return logs.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0) / logs.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
}
