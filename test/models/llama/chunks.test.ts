import { beforeAll, describe, expect, test } from 'vitest';
import { Llama } from '../../../lib/models/llama.js';
import type { Session } from '../../../lib/models/session.js';
import { Random } from '../../../lib/random.js';
import { worst } from '../../numbers.js';
import { names, pathOf, pieces, tokensFor } from './models.js';
import { exact, openReference, ReferenceSequence, single } from './reference.js';
import { type Plan, plans } from './reference_policy.js';

const every: readonly Plan[] = [
	plans.full(),
	plans.window(50),
	plans.window(40, 4),
	plans.window(3, 3),
	plans.tova(50),
	plans.tova(1),
	plans.tova(33, 2, 7),
	plans.h2o(50),
	plans.h2o(33),
	plans.h2o(1),
	plans.h2o(40, 3, 9),
];

/** States held, by layer and key-value head. */
async function keptBy(session: Session, sequence = 0): Promise<Int32Array[]> {
	const { layers, kvHeads } = session.model.config;
	return Promise.all(Array.from({ length: layers * kvHeads }, (_, i) => session.kept(Math.floor(i / kvHeads), i % kvHeads, sequence)));
}

/** The share of states that both hold: in f16 a last bit that is rounded the other way may change which one goes. */
function shared(a: readonly Int32Array[], b: readonly Int32Array[]): number {
	let [both, all] = [0, 0];
	for (const [i, states] of a.entries()) {
		const others = new Set(b[i]!);
		all += Math.max(states.length, others.size);
		for (const state of states) if (others.has(state)) both++;
	}
	return both / all;
}

describe.each(names)('%s', (name) => {
	let model: Llama;
	let tokens: number[];
	/** How far the most naive f32 decoder is from float64 on these tokens. Two ways to cut may be 8 times that apart, 4 for each. */
	let naive = 0;

	beforeAll(async () => {
		model = await Llama.load(await pathOf(name));
		tokens = [...(await tokensFor(model, 150, 11))];
		const reference = await openReference(model.path);
		const options = { plans: Array(model.config.layers).fill(plans.full()), positions: 'original' as const };
		const [double, rounded] = [exact, single].map((round) => new ReferenceSequence(reference, { ...options, round }));
		for (const token of tokens) naive = Math.max(naive, worst(double!.step(token), rounded!.step(token)));
	});

	test.each(['original', 'cache'] as const)('f16, positions %s: a token sees itself as those after it will see it', async (positions) => {
		const reference = await openReference(model.path);
		for (const plan of [plans.full(), plans.tova(8), plans.h2o(10)]) {
			// Of few tokens, few are rounded the other way: the median is not touched by them.
			const shares: { chunk: number[]; steps: number[] } = { chunk: [], steps: [] };
			for (let at = 0; at + 8 <= tokens.length; at += 8) {
				const list = tokens.slice(at, at + 8);
				const options = { plans: Array(model.config.layers).fill(plan), positions };
				const [half, whole] = (['f16', 'f32'] as const).map((dtype) => {
					const sequence = new ReferenceSequence(reference, { ...options, dtype });
					return list.map((token) => sequence.step(token)).at(-1)!;
				});
				using chunk = model.session({ cache: plan.policy, positions, dtype: 'f16' });
				using steps = model.session({ cache: plan.policy, positions, dtype: 'f16' });
				shares.chunk.push(worst(await chunk.next(list), half!) / worst(whole!, half!));
				for (const token of list) await steps.append([token]);
				shares.steps.push(worst(await steps.next([]), half!) / worst(whole!, half!));
			}
			for (const [way, share] of Object.entries(shares)) {
				share.sort((a, b) => a - b);
				expect(share[Math.floor(share.length / 2)], `${plan.name}, ${way}: 1 is not to round at all`).toBeLessThan(0.5);
			}
		}
	});

	describe.each(['original', 'cache'] as const)('positions: %s', (positions) => {
		test.each(every)('$name: all at once, in random pieces and one by one leave the same states and logits', async ({ policy }) => {
			const logits: Float32Array[] = [];
			for (const dtype of ['f32', 'f16'] as const) {
				using one = model.session({ cache: policy, positions, dtype });
				for (const token of tokens) await one.append([token]);
				const right = (await one.next([])).slice();
				const held = await keptBy(one);
				logits.push(right);
				// In f16 the last bit may be rounded the other way, and all states after it change (see runBeside): a flip moves a number by
				// twice what rounding to f16 moved it at most.
				const bound = 8 * naive + (dtype === 'f16' ? 8 * worst(right, logits[0]!) : 0);
				const cuts = [[tokens], ...[0, 1, 2].map((seed) => pieces(tokens, [60, 30, 9][seed]!, seed))];
				for (const [i, cut] of cuts.entries()) {
					using session = model.session({ cache: policy, positions, dtype });
					for (const piece of cut) await session.append(piece);
					expect(session.position).toBe(tokens.length);
					const kept = await keptBy(session);
					if (dtype === 'f32') expect(kept, `${dtype}, cut ${i}`).toEqual(held);
					else expect(shared(kept, held), `${dtype}, cut ${i}`).toBeGreaterThan(0.8);
					// Where other states are held, other logits are right.
					if (shared(kept, held) === 1) expect(worst(await session.next([]), right), `${dtype}, cut ${i}`).toBeLessThanOrEqual(bound);
				}
			}
			expect(worst(logits[0]!, logits[1]!)).toBeGreaterThan(0);
		});

		test.each(every)(
			'$name: sequences of a batch, in pieces of one length, from one start or each its own, as each alone',
			async ({ policy }) => {
				for (const [starts, dtype] of [
					[[0, 0, 0], 'f32'],
					[[0, 0, 0], 'f16'],
					[[0, 3, 7], 'f32'],
				] as const) {
					const lists = starts.map((start, b) => tokens.slice(40 * b, 40 * b + start + 60));
					using session = model.session({ cache: policy, positions, dtype, batch: 3 });
					await session.append(lists.map((list, b) => list.slice(0, starts[b])));
					const cuts = [0, 12, 30, 31, 60];
					for (const [i, from] of cuts.slice(0, -1).entries()) {
						await session.append(lists.map((list, b) => list.slice(starts[b]! + from, starts[b]! + cuts[i + 1]!)));
					}
					const found = await session.next([[], [], []]);
					const { vocabulary } = model.config;
					for (const [b, list] of lists.entries()) {
						using alone = model.session({ cache: policy, positions, dtype });
						for (const token of list) await alone.append([token]);
						const same = shared(await keptBy(session, b), await keptBy(alone));
						expect(same, `${dtype}, sequence ${b}`).toBeGreaterThan(dtype === 'f32' ? 0.9999 : 0.8);
						if (same < 1) continue;
						const right = (await alone.next([])).slice();
						using whole = model.session({ cache: policy, positions });
						const bound = 8 * naive + (dtype === 'f16' ? 8 * worst(right, await whole.next(list)) : 0);
						const row = found.subarray(b * vocabulary, (b + 1) * vocabulary);
						expect(worst(row, right), `${dtype}, sequence ${b}`).toBeLessThanOrEqual(bound);
					}
				}
			},
		);

		test('sequences of a batch, in pieces of different lengths, as each alone', async () => {
			const mixed = [plans.h2o(11), plans.tova(14, 1), plans.window(12, 2), plans.full(), plans.tova(9)];
			const cache = mixed.slice(0, model.config.layers).map(({ policy }) => policy);
			const lists = [tokens.slice(0, 90), tokens.slice(60, 65), tokens.slice(20, 140), []];
			using session = model.session({ cache, positions, batch: lists.length });
			const random = new Random(4);
			const done = lists.map(() => 0);
			while (done.some((n, b) => n < lists[b]!.length)) {
				await session.append(lists.map((list, b) => list.slice(done[b]!, (done[b]! += random.integer(30)))));
				for (const [b, list] of lists.entries()) done[b] = Math.min(done[b]!, list.length);
				expect([...session.sequencePositions]).toEqual(done);
			}
			const logits = await session.next([[], [], [], []]);
			const { vocabulary } = model.config;
			for (const [b, list] of lists.slice(0, 3).entries()) {
				using alone = model.session({ cache, positions });
				for (const token of list) await alone.append([token]);
				expect(await keptBy(session, b), `sequence ${b}`).toEqual(await keptBy(alone));
				const row = logits.subarray(b * vocabulary, (b + 1) * vocabulary);
				expect(worst(row, await alone.next([])), `sequence ${b}`).toBeLessThanOrEqual(8 * naive);
			}
			expect(await keptBy(session, 3)).toEqual(Array(model.config.layers * model.config.kvHeads).fill(new Int32Array(0)));
			expect(logits.subarray(3 * vocabulary).every(Number.isNaN)).toBe(true);
		});
	});
});
