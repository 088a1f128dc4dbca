import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { Llama } from '../../../lib/models/llama.js';
import type { Session } from '../../../lib/models/session.js';
import { worst } from '../../numbers.js';
import { pathOf, published, tokensFor } from './models.js';

let model: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	tokens = [...(await tokensFor(model, 2000, 31))];
});

afterAll(() => model.dispose());

const caches: [string, Policy][] = [
	['full', full()],
	['window', window(30, { sinks: 2 })],
	['tova', tova(30)],
	['h2o', h2o(31)],
];

/** What every call of one seed says: logits at the end, and what is held. */
async function endOf(session: Session): Promise<{ logits: Float32Array; kept: Int32Array[] }> {
	const kept = await Promise.all(Array.from({ length: model.config.layers }, (_, layer) => session.kept(layer)));
	return { logits: (await session.next([])).slice(), kept };
}

describe.each(caches)('%s', (_, cache) => {
	test('aborted before: nothing moves', async () => {
		using session = model.session({ cache });
		await session.append(tokens.slice(0, 50));
		const before = await endOf(session);
		const reason = new Error('enough');
		for (const call of ['append', 'next', 'score'] as const) {
			await expect(session[call](tokens, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
		}
		expect(session.position).toBe(50);
		expect(await endOf(session)).toEqual(before);
	});

	test.each(['append', 'score'] as const)(
		'%s aborted on the way: position says how far it came, and going on is as never aborted',
		async (call) => {
			for (const positions of ['original', 'cache'] as const) {
				using whole = model.session({ cache, positions });
				await whole.append(tokens);
				const right = await endOf(whole);
				const moments = [
					...[1, 2, 3].map((n) => (controller: AbortController) => {
						let seen = 0;
						return () => ++seen === n && controller.abort('now');
					}),
					...[0, 1, 5, 20].map((ms) => (controller: AbortController) => {
						setTimeout(() => controller.abort('now'), ms);
						return () => {};
					}),
				];
				for (const moment of moments) {
					using session = model.session({ cache, positions });
					const controller = new AbortController();
					const done: number[] = [];
					const told = moment(controller);
					const onProgress = (part: number) => {
						done.push(part);
						told();
					};
					const failed = await session[call](tokens, { signal: controller.signal, onProgress }).then(
						() => null,
						(error: unknown) => error,
					);
					if (failed === null) expect(session.position).toBe(tokens.length);
					else expect(failed).toBe('now');
					expect(session.position).toBe(Math.round((done.at(-1) ?? 0) * tokens.length));
					await session[call](tokens.slice(session.position));
					expect(session.position).toBe(tokens.length);
					const found = await endOf(session);
					expect(found.kept).toEqual(right.kept);
					expect(worst(found.logits, right.logits)).toBeLessThanOrEqual(2e-4); // 1e-4 for each, as in golden.test.ts
				}
			}
		},
	);

	test('what follows an append that was aborted is not predicted from what came before it', async () => {
		using whole = model.session({ cache });
		const { nll } = await whole.score(tokens);
		using session = model.session({ cache });
		await session.append(tokens.slice(0, 10));
		const controller = new AbortController();
		const onProgress = () => controller.abort('now');
		await expect(session.append(tokens.slice(10), { signal: controller.signal, onProgress })).rejects.toBe('now');
		const at = session.position;
		expect(at).toBeGreaterThan(10);
		expect(at).toBeLessThan(tokens.length);
		const found = (await session.score(tokens.slice(at, at + 20))).nll;
		for (const [i, loss] of found.entries()) {
			// Not known is an answer, another token's is none.
			if (!(i === 0 && Number.isNaN(loss))) expect(Math.abs(loss - nll[at + i]!), `token ${at + i}`).toBeLessThan(2e-4);
		}
	});
});

test('a batch of different lengths goes on where each of its sequences was', async () => {
	const lists = [tokens.slice(0, 900), tokens.slice(0, 130), tokens.slice(100, 600)];
	using whole = model.session({ cache: tova(20), batch: 3 });
	await whole.append(lists);
	using session = model.session({ cache: tova(20), batch: 3 });
	const controller = new AbortController();
	const onProgress = () => controller.abort('now');
	await expect(session.append(lists, { signal: controller.signal, onProgress })).rejects.toBe('now');
	const at = session.sequencePositions;
	expect(Math.min(...at)).toBeGreaterThan(0);
	await session.append(lists.map((list, b) => list.slice(at[b]!)));
	expect(session.sequencePositions).toEqual(whole.sequencePositions);
	for (let b = 0; b < 3; b++) expect(await session.kept(1, 0, b)).toEqual(await whole.kept(1, 0, b));
	expect(worst(await session.next([[], [], []]), await whole.next([[], [], []]))).toBeLessThanOrEqual(2e-4);
});

test('a callback that throws ends the call; the session goes on', async () => {
	using session = model.session({ cache: tova(20) });
	const onProgress = () => {
		throw new RangeError('mine');
	};
	await expect(session.append(tokens, { onProgress })).rejects.toThrow('mine');
	await session.append(tokens.slice(session.position));
	using whole = model.session({ cache: tova(20) });
	await whole.append(tokens);
	expect(await session.kept(0)).toEqual(await whole.kept(0));
});
