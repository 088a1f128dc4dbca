import type { DeviceName } from '../device.js';
import { memory } from '../device.js';
import { type MixerName, Stack } from '../layers/block.js';
import { Random } from '../random.js';
import { tensor } from '../tensor.js';

export interface GrowthOptions {
	readonly mixer: MixerName;
	/** Length of the stream. */
	readonly tokens: number;
	/** Numbers of tokens after which to look, ascending, the last being `tokens`. */
	readonly at: readonly number[];
	readonly dim: number;
	readonly heads: number;
	readonly layers: number;
	readonly seed: number;
	readonly device: DeviceName;
	readonly signal?: AbortSignal | undefined;
	readonly onProgress?: (done: number) => void;
}

export interface GrowthPoint {
	readonly tokens: number;
	/** Held by the state. */
	readonly bytes: number;
	/** Since the start of the stream. */
	readonly seconds: number;
}

/** How a stack's memory and time grow with the length of a stream that is fed token by token. Tokens are drawn from a seed. */
export async function growth(options: GrowthOptions): Promise<{ points: GrowthPoint[]; parameters: number; peakBytes: number }> {
	const { mixer, tokens, at, dim, heads, layers, seed, device, signal, onProgress } = options;
	using stack = new Stack(layers, { mixer, dim, heads, seed, device, norm: 'pre' });
	using state = stack.initialState({ batch: 1 });
	const random = new Random(seed);
	// A few tokens in turn do: what they say makes no difference to memory and time.
	const inputs = Array.from({ length: 16 }, () => Float32Array.from({ length: dim }, () => random.normal()));
	const points: GrowthPoint[] = [];
	let milliseconds = 0;
	let next = 0;
	for (let t = 1; t <= tokens; t++) {
		const x = tensor(inputs[t % inputs.length]!, [1, 1, dim], { device });
		const began = performance.now();
		const y = stack.forward(x, state);
		await y.read();
		milliseconds += performance.now() - began;
		x.dispose();
		y.dispose();
		if (t === at[next]) {
			points.push({ tokens: t, bytes: state.bytes, seconds: milliseconds / 1000 });
			next++;
			signal?.throwIfAborted();
			onProgress?.(t / tokens);
			await new Promise(setImmediate); // lets Ctrl-C and the progress bar have their turn
		}
	}
	return { points, parameters: stack.parameterCount, peakBytes: memory(device).peakBytes };
}

/** The power of x that y grows with: the slope of log y over log x, by least squares. */
export function exponent(points: readonly (readonly [number, number])[]): number {
	const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
	const mean = (of: (point: readonly [number, number]) => number) => logs.reduce((sum, point) => sum + of(point), 0) / logs.length;
	const mx = mean(([x]) => x);
	const my = mean(([, y]) => y);
	return logs.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0) / logs.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
}
