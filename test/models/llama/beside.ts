import { expect } from 'vitest';
import type { Llama } from '../../../lib/models/llama.js';
import { worst } from '../../numbers.js';
import { exact, type ReferenceModel, ReferenceSequence, type Round, single } from './reference.js';
import type { Plan } from './reference_policy.js';

export interface Beside {
	/** One a layer. */
	readonly plans: readonly Plan[];
	readonly positions: 'original' | 'cache';
	readonly dtype?: 'f32' | 'f16';
	/** Tokens of each sequence. */
	readonly tokens: readonly ArrayLike<number>[];
	/** Whether a sequence takes its next token in this step. @default all do */
	readonly takes?: (step: number, sequence: number) => boolean;
}

export interface Compared {
	/** Steps of all sequences. */
	readonly steps: number;
	/** States that went, over all layers and key-value heads. */
	readonly evictions: number;
	/** How many of them the reference would have chosen otherwise, by a score that f32 cannot tell from the lowest. */
	readonly ties: number;
}

/**
 * A session runs beside the reference, token by token: the states held are compared after every step, in every layer and key-value
 * head, and the logits.
 *
 * How far f32 may be from float64 is measured and not guessed: a second reference rounds every single result to f32, as the most naive decoder
 * would. The session may be 4 times as far from float64 as that one, in logits and in scores: it adds in another order, and its exponential
 * is within 2 units in the last place and not a half.
 *
 * In f16 a difference of the last bit of an f32 may turn into one of the last bit of an f16, which changes all states after it by more than
 * that bit: two right decoders are as far apart as rounding to f16 moved each of them. So they may be twice as far apart as a reference
 * that does not round to f16 is; that they do round is seen from short texts (chunks.test.ts).
 */
export async function runBeside(model: Llama, reference: ReferenceModel, options: Beside): Promise<Compared> {
	const { plans, positions, dtype = 'f32', tokens, takes = () => true } = options;
	const { kvHeads, vocabulary } = model.config;
	const of = (given: typeof dtype, round: Round) =>
		tokens.map(() => new ReferenceSequence(reference, { plans, positions, dtype: given, round }));
	const [doubles, singles, wholes] = [of(dtype, exact), of(dtype, single), dtype === 'f16' ? of('f32', exact) : []];
	using session = model.session({ cache: plans.map(({ policy }) => policy), batch: tokens.length, positions, dtype });
	const seen = tokens.map(() => 0);
	let [steps, evictions] = [0, 0];
	let ours = 0;
	const allowed = { logits: 0, scores: 0 };
	const { layers } = model.config;
	for (let step = 0; seen.some((n, b) => n < tokens[b]!.length); step++) {
		const lists = tokens.map((list, b) => (seen[b]! < list.length && takes(step, b) ? [list[seen[b]!]!] : []));
		const logits = await session.next(lists);
		for (const [b, list] of lists.entries()) {
			if (list.length === 0) continue;
			const kept = new Map<number, Int32Array>();
			for (let layer = 0; layer < layers; layer++) {
				for (let g = 0; g < kvHeads; g++) kept.set(layer * kvHeads + g, await session.kept(layer, g, b));
			}
			const follow = (layer: number, g: number) => kept.get(layer * kvHeads + g)!;
			const right = doubles[b]!.step(list[0]!, follow);
			ours = Math.max(ours, worst(logits.subarray(b * vocabulary, (b + 1) * vocabulary), right));
			for (const [other, times] of [[singles[b]!, 4], ...(wholes[b] ? [[wholes[b]!, 2] as const] : [])] as const) {
				allowed.logits = Math.max(allowed.logits, times * worst(other.step(list[0]!, follow), right));
				allowed.scores = Math.max(allowed.scores, times * distance(doubles[b]!.scores, other.scores));
			}
			for (const plan of plans) if (seen[b]! >= plan.size) evictions += kvHeads;
			seen[b]!++;
			steps++;
		}
	}
	expect(session.sequencePositions).toEqual(Int32Array.from(seen));
	const ties = doubles.flatMap((sequence) => sequence.ties);
	for (const { layer, kvHead, position, gap } of ties) {
		expect(gap, `layer ${layer}, key-value head ${kvHead}, position ${position}: not the lowest score`).toBeLessThanOrEqual(allowed.scores);
	}
	expect(ours, 'logits').toBeLessThanOrEqual(allowed.logits);
	return { steps, evictions, ties: ties.length };
}

/** The largest relative difference. */
function distance(right: readonly number[][][], rounded: readonly number[][][]): number {
	let most = 0;
	for (const [layer, lists] of right.entries()) {
		for (const [g, list] of lists.entries()) {
			for (const [j, score] of list.entries()) if (score !== 0) most = Math.max(most, Math.abs(rounded[layer]![g]![j]! / score - 1));
		}
	}
	return most;
}
