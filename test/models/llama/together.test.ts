import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { Llama } from '../../../lib/models/llama.js';
import { Session } from '../../../lib/models/session.js';
import { generateTogether } from '../../../lib/models/together.js';
import { worst } from '../../harness.js';
import { names, pathOf, tokensFor } from './models.js';

let model: Llama;
let tokens: Int32Array;

beforeAll(async () => {
	model = await Llama.load(await pathOf(names.at(-1)!));
	tokens = await tokensFor(model, 400);
});
afterAll(() => model?.dispose());

/** TOVA, as a policy of one's own. */
const own: Policy = { ...tova(9), name: 'own', score: ({ scores, received }) => scores.set(received) };
const policies = [tova(9), h2o(8), window(5, { sinks: 2 }), full(), own, tova(30)];

describe.each(['original', 'cache'] as const)('sessions together, positions %s', (positions) => {
	test('each goes on as it would alone', async () => {
		const together = policies.map((cache) => model.session({ cache, positions }));
		const alone = policies.map((cache) => model.session({ cache, positions }));
		for (const [i, session] of together.entries()) {
			await session.append(tokens.subarray(0, 3 * i)); // they are at different places
			await alone[i]!.append(tokens.subarray(0, 3 * i));
		}
		for (let step = 0; step < 60; step++) {
			const next = together.map((_, i) => tokens[20 * i + step]!);
			const logits = await Session.nextTogether(together, next);
			for (const [i, session] of alone.entries()) {
				expect(worst(logits[i]!, await session.next([next[i]!])), `step ${step}, session ${i}`).toBeLessThan(1e-4);
				expect(await together[i]!.kept(1, 2)).toEqual(await session.kept(1, 2));
				expect(together[i]!.position).toBe(session.position);
			}
		}
		for (const session of [...together, ...alone]) session.dispose();
	});

	test('texts are those that each session gives alone, and memory returns', async () => {
		const before = memory().bytes;
		const make = () => policies.map((cache) => model.session({ cache, positions }));
		const prompts = policies.map((_, i) => tokens.subarray(10 * i, 10 * i + 1 + 2 * i));
		const options = { temperature: 0, maxTokens: 12 };
		const together = make();
		const texts = policies.map(() => '');
		for await (const { index, text } of generateTogether(together, prompts, options)) texts[index] += text;
		const alone = make();
		for (const [i, session] of alone.entries()) {
			let text = '';
			for await (const piece of session.generate(prompts[i]!, options)) text += piece.text;
			expect(texts[i], `session ${i}`).toBe(text);
		}
		for (const session of [...together, ...alone]) session.dispose();
		await synchronize();
		expect(memory().bytes).toBeLessThanOrEqual(before + model.config.vocabulary * 4 + (1 << 16)); // activations stay with the model
	});
});

test('what cannot go together is refused, and the sessions stay usable', async () => {
	const [a, b, c] = [
		model.session({ cache: tova(4) }),
		model.session({ cache: full() }),
		model.session({ cache: full(), positions: 'cache' }),
	];
	using two = model.session({ cache: full(), batch: 2 });
	const refused = async (sessions: Session[], list: number[], message: RegExp) =>
		await expect(Session.nextTogether(sessions, list)).rejects.toThrow(message);
	await refused([], [], /no sessions/);
	await refused([a, b], [1], /1 tokens for 2 sessions/);
	await refused([a, a], [1, 1], /a session twice/);
	await refused([a, c], [1, 1], /positions/);
	await refused([a, two], [1, 1], /a session of 2 sequences/);
	await refused([a, b], [1, -1], /token 0 of sequence 0 is -1/);
	const busy = a.append(tokens);
	await refused([a, b], [1, 1], /another call is still running/);
	await busy;
	b.dispose();
	await refused([a, b], [1, 1], /disposed/);
	expect((await Session.nextTogether([a], [5]))[0]!.every(Number.isFinite)).toBe(true);
	expect(() => generateTogether([], [])).toThrow(/no sessions/);
	a.dispose();
	c.dispose();
});
