import type { Rope } from './pretrained.js';

/** How a model's frequencies were changed so that it reads longer texts than it was first trained on. */
export type RopeScaling =
	/** Positions divided by a factor (Chen et al. 2023). */
	| { readonly kind: 'linear'; readonly factor: number }
	/** Llama 3.1: long waves divided by a factor, short ones kept, a ramp between; `context` is that of the first training. */
	| { readonly kind: 'llama3'; readonly factor: number; readonly low: number; readonly high: number; readonly context: number }
	/**
	 * YaRN (Peng et al. 2023): pairs that turn more than `fast` times in `context` are kept, those that turn less than `slow` times are
	 * divided, a ramp between, whose ends are whole pairs if `whole`. Cosine and sine are multiplied by `magnitude`.
	 */
	| {
			readonly kind: 'yarn';
			readonly factor: number;
			readonly context: number;
			readonly fast: number;
			readonly slow: number;
			readonly whole: boolean;
			readonly magnitude: number;
	  };

/** Radians a position of each pair of a head, `[headDim / 2]`, in double: θ^(−2i/D), then scaled. */
export function ropeFrequencies(headDim: number, theta: number, scaling: RopeScaling | null): Pick<Rope, 'frequencies' | 'magnitude'> {
	const frequencies = Float64Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim));
	if (scaling?.kind === 'linear') for (let i = 0; i < frequencies.length; i++) frequencies[i]! /= scaling.factor;
	if (scaling?.kind === 'llama3') scaleLlama3(frequencies, scaling);
	if (scaling?.kind === 'yarn') scaleYarn(frequencies, headDim, theta, scaling);
	return { frequencies, magnitude: scaling?.kind === 'yarn' ? scaling.magnitude : 1 };
}

/** The published rule of YaRN for what attention is multiplied by, once each in queries and keys. */
export function yarnMagnitude(factor: number, weight = 1): number {
	return factor <= 1 ? 1 : 1 + 0.1 * weight * Math.log(factor);
}

function scaleLlama3(frequencies: Float64Array, { factor, low, high, context }: RopeScaling & { kind: 'llama3' }): void {
	for (let i = 0; i < frequencies.length; i++) {
		const kept = frequencies[i]!;
		const turns = (context * kept) / (2 * Math.PI); // in the context of the first training
		const share = Math.min(Math.max((turns - low) / (high - low), 0), 1);
		frequencies[i] = share * kept + (1 - share) * (kept / factor);
	}
}

function scaleYarn(frequencies: Float64Array, headDim: number, theta: number, scaling: RopeScaling & { kind: 'yarn' }): void {
	const { factor, context, fast, slow, whole } = scaling;
	/** The pair, in fractions of one, that turns this often in the context of the first training. */
	const pairOf = (turns: number) => (headDim * Math.log(context / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
	const [from, to] = whole ? [Math.floor(pairOf(fast)), Math.ceil(pairOf(slow))] : [pairOf(fast), pairOf(slow)];
	const first = Math.max(from, 0);
	const last = Math.min(to, headDim - 1);
	for (let i = 0; i < frequencies.length; i++) {
		const divided = Math.min(Math.max((i - first) / (last === first ? 0.001 : last - first), 0), 1);
		frequencies[i] = frequencies[i]! * (1 - divided) + (frequencies[i]! / factor) * divided;
	}
}
