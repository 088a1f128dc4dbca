import { expect, test } from 'vitest';
import { full, h2o, tova, window } from '../../../lib/cache/index.js';
import { Llama } from '../../../lib/models/llama.js';
import { pathOf, published, tokensFor } from './models.js';

test('calls of sessions of one model that overlap do not disturb each other', async () => {
	using model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	const tokens = [...(await tokensFor(model, 1400, 21))];
	const caches = [full(), tova(20), h2o(13), window(9), tova(30), full()];
	const long = Array.from({ length: caches.length }, (_, i) => tokens.slice(100 * i, 100 * i + [9, 700, 9, 1, 90, 700][i]!));
	const calls = async (start: (make: () => Promise<Float32Array>) => Promise<Float32Array>) => {
		const sessions = caches.map((cache) => model.session({ cache }));
		const found: Float32Array[] = [];
		for (const lists of [long, caches.map((_, i) => [i + 3]), caches.map((_, i) => tokens.slice(i, i + 3))]) {
			found.push(...(await Promise.all(sessions.map((session, i) => start(async () => (await session.next(lists[i]!)).slice())))));
		}
		const scores = await Promise.all(sessions.map((session, i) => start(async () => (await session.score(tokens.slice(i, i + 20))).nll)));
		for (const session of sessions) session.dispose();
		return [...found, ...scores];
	};
	let before: Promise<unknown> = Promise.resolve();
	const alone = await calls((make) => {
		const result = before.then(make);
		before = result;
		return result;
	});
	expect(await calls((make) => make())).toEqual(alone);
});
