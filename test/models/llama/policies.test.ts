import { describe, expect, test } from 'vitest';
import { Llama } from '../../../lib/models/llama.js';
import { runBeside } from './beside.js';
import { names, pathOf, tokensFor } from './models.js';
import { openReference } from './reference.js';
import { type Plan, plans } from './reference_policy.js';

const every: readonly Plan[] = [
	plans.full(),
	plans.window(20),
	plans.window(20, 4),
	plans.window(1),
	plans.window(3, 3), // the new state itself goes
	plans.tova(20),
	plans.tova(1),
	plans.tova(20, 4),
	plans.tova(19, 2, 5),
	plans.tova(8, 3, 5),
	plans.h2o(20),
	plans.h2o(15),
	plans.h2o(1),
	plans.h2o(2),
	plans.h2o(21, 3, 4),
	plans.h2o(16, 0, 0),
];

/** Of a thousand states that go, so many may be too close for f32 to tell: 1, and 2 for a short run. */
const few = (evictions: number) => 2 + evictions / 1000;

describe.each(names)('%s: every state that goes, and logits, as a slow reference in float64 has them', (name) => {
	const opened = (async () => {
		const place = await pathOf(name);
		return { model: await Llama.load(place), reference: await openReference(place) };
	})();

	describe.each(['original', 'cache'] as const)('positions: %s', (positions) => {
		test.each(every)('$name', async (plan) => {
			const { model, reference } = await opened;
			const tokens = [await tokensFor(model, 64)];
			const { steps, evictions, ties } = await runBeside(model, reference, {
				plans: Array(model.config.layers).fill(plan),
				positions,
				tokens,
			});
			expect(steps).toBe(64);
			expect(ties).toBeLessThanOrEqual(few(evictions));
		});

		test('sequences of different lengths side by side, another policy in each layer', async () => {
			const { model, reference } = await opened;
			const mixed = [plans.h2o(11), plans.tova(14, 1), plans.window(12, 2), plans.full(), plans.tova(9)].slice(0, model.config.layers);
			const tokens = [await tokensFor(model, 60, 2), await tokensFor(model, 5, 3), await tokensFor(model, 41, 4)];
			const takes = (step: number, b: number) => (step * 7 + b * 3) % 5 > b; // each at its own pace
			const { steps, evictions, ties } = await runBeside(model, reference, { plans: mixed, positions, tokens, takes });
			expect(steps).toBe(106);
			expect(ties).toBeLessThanOrEqual(few(evictions));
		});

		test('f16 caches', async () => {
			const { model, reference } = await opened;
			const mixed = [plans.tova(13), plans.h2o(10), plans.window(12, 2), plans.full(), plans.tova(9)].slice(0, model.config.layers);
			const tokens = [await tokensFor(model, 60, 5), await tokensFor(model, 40, 6)];
			const { evictions, ties } = await runBeside(model, reference, { plans: mixed, positions, dtype: 'f16', tokens });
			expect(ties).toBeLessThanOrEqual(few(evictions));
		});
	});

	test('a long run past the trained context', async () => {
		const { model, reference } = await opened;
		const { layers } = model.config;
		const tokens = [await tokensFor(model, 600, 7)];
		const mixed = [plans.tova(64), plans.h2o(48)];
		const each = Array.from({ length: layers }, (_, i) => mixed[i % 2]!);
		const { evictions, ties } = await runBeside(model, reference, { plans: each, positions: 'cache', tokens });
		expect(evictions).toBeGreaterThan(500 * layers);
		expect(ties).toBeLessThanOrEqual(few(evictions));
	});
});
