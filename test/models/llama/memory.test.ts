import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { Llama } from '../../../lib/models/llama.js';
import { pathOf, published, tokensFor } from './models.js';

let model: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	tokens = [...(await tokensFor(model, 2100, 61))];
});

afterAll(() => model.dispose());

async function held(): Promise<number> {
	await synchronize(); // what is queued holds its buffers
	return memory().bytes;
}

/** Bytes of B sequences of one layer, from the shapes in binding.d.ts. */
function bytesOf(policy: Policy, slots: number, batch: number, dtype: 'f32' | 'f16', positions: 'original' | 'cache'): number {
	const { kvHeads, headDim } = model.config;
	const choosers = policy.heads === 'own' ? kvHeads : 1;
	const keysAndValues = 2 * batch * slots * kvHeads * headDim * (dtype === 'f16' ? 2 : 4);
	return keysAndValues + (positions === 'cache' ? 3 : 2) * 4 * batch * choosers * slots; // positions, scores, and ranks
}

describe.each([
	['window', window(32)],
	['tova', tova(33, { sinks: 1 })],
	['h2o', h2o(31)],
] as const)('%s', (_, policy) => {
	test.each(['original', 'cache'] as const)(
		'positions %s: bytes are those of the shapes, flat over 2,000 steps, and come back',
		async (positions) => {
			for (const dtype of ['f32', 'f16'] as const) {
				const { layers } = model.config;
				using warm = model.session({ cache: window(1) });
				await warm.append([1]);
				const before = await held();
				const session = model.session({ cache: policy, positions, dtype });
				const right = layers * bytesOf(policy, policy.size, 1, dtype, positions);
				expect(session.bytes).toBe(right);
				expect(session.states).toBe(0);
				await session.append([tokens[0]!]);
				const flat = await held();
				// Beside the caches there is only the table of cosines and sines of S + 1 places.
				expect(flat - before).toBe(right + (positions === 'cache' ? 4 * (policy.size + 1) * model.config.headDim : 0));
				for (let i = 1; i <= (dtype === 'f32' ? 2000 : 200); i++) {
					await session.append([tokens[i]!]);
					if (i % 50 === 0) {
						expect(await held()).toBe(flat);
						expect(session.bytes).toBe(right);
						expect(session.states).toBe(Math.min(i + 1, policy.size));
					}
				}
				session.dispose();
				expect(await held()).toBe(before);
				expect(session.bytes).toBe(0);
			}
		},
	);
});

test('several sequences, another policy in each layer', async () => {
	const { layers } = model.config;
	const cache = Array.from({ length: layers }, (_, i) => [tova(7), h2o(9), window(5)][i % 3]!);
	using session = model.session({ cache, batch: 4, positions: 'cache' });
	const right = cache.reduce((n, policy) => n + bytesOf(policy, policy.size, 4, 'f32', 'cache'), 0);
	await session.append([tokens.slice(0, 700), [], [1], tokens.slice(0, 8)]);
	expect(session.bytes).toBe(right);
	expect(session.states).toBe(9);
});

test('full grows by doubling, holds every state, and all of it comes back', async () => {
	using warm = model.session({ cache: window(1) });
	await warm.append(tokens.slice(0, 600));
	await warm.append([1]);
	const before = await held();
	for (const positions of ['original', 'cache'] as const) {
		const session = model.session({ cache: full(), positions });
		for (const length of [64, 1, 63, 200, 1]) {
			await session.append(tokens.slice(session.position, session.position + length));
			const { position, states, bytes } = session;
			expect(states).toBe(position);
			const least = model.config.layers * bytesOf(full(), position, 1, 'f32', positions);
			expect(bytes).toBeGreaterThanOrEqual(least);
			expect(bytes).toBeLessThanOrEqual(Math.max(2 * least, model.config.layers * bytesOf(full(), 64, 1, 'f32', positions)));
			expect([...(await session.kept(0))]).toEqual(Array.from({ length: position }, (_, i) => i));
		}
		session.dispose();
		await warm.append(tokens.slice(0, 600));
		await warm.append([1]);
		expect(await held()).toBe(before);
	}
});

test('the most that a long prompt takes is a chunk and not the prompt', async () => {
	using session = model.session({ cache: tova(32) });
	await session.append(tokens.slice(0, 600));
	await held();
	const { peakBytes } = memory();
	await session.append([...tokens, ...tokens, ...tokens]);
	expect(memory().peakBytes - peakBytes).toBeLessThan(2 ** 16);
});
