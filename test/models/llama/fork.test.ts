import { afterAll, beforeAll, expect, test } from 'vitest';
import { full, h2o, tova } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { DisposedError } from '../../../lib/errors.js';
import { Llama } from '../../../lib/models/llama.js';
import { pathOf, published, settled, tokensFor } from './models.js';

let model: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	tokens = [...(await tokensFor(model, 400, 21))];
});

afterAll(() => model.dispose());

test.each([
	['original', 'tova', tova(24)],
	['cache', 'tova', tova(24)],
	['cache', 'h2o', h2o(15)],
	['original', 'full', full()],
	['cache', 'full', full()],
] as const)('positions %s, %s: both go their own way', async (positions, _, cache) => {
	const before = await settled(model);
	const straight = async (list: readonly number[]) => {
		using session = model.session({ cache, positions });
		await session.append(tokens.slice(0, 60));
		return (await session.next(list)).slice();
	};
	const ways = [tokens.slice(100, 150), tokens.slice(200, 205), tokens.slice(300, 400)];
	const right = [await straight(ways[0]!), await straight(ways[1]!), await straight(ways[2]!)];
	for (const order of [
		[0, 1, 2],
		[2, 1, 0],
		[1, 0, 2],
	]) {
		const session = model.session({ cache, positions });
		await session.append(tokens.slice(0, 60));
		await synchronize();
		const held = memory().bytes;
		const [a, b] = [session.fork(), session.fork()];
		expect(memory().bytes).toBe(held); // nothing is copied before somebody writes
		const all = [session, a, b];
		expect(b.position).toBe(60);
		expect(await b.kept(0)).toEqual(await session.kept(0));
		for (const i of order) expect(await all[i]!.next(ways[i]!)).toEqual(right[i]);
		for (const i of order) {
			all[i]!.dispose();
			all[i]!.dispose();
			for (const rest of all) if (!rest.disposed) await rest.append([5]);
		}
		expect(await settled(model)).toBe(before);
	}
});

test('a fork of a fork outlives both, and has logits of its own', async () => {
	const session = model.session({ cache: tova(16), positions: 'cache' });
	await session.append(tokens.slice(0, 40));
	const logits = (await session.next([])).slice();
	const child = session.fork();
	await session.append([9]);
	expect(await child.next([])).toEqual(logits);
	const grandchild = child.fork();
	session.dispose();
	child.dispose();
	using alone = model.session({ cache: tova(16), positions: 'cache' });
	await alone.append(tokens.slice(0, 40));
	expect(await grandchild.next([7, 8])).toEqual(await alone.next([7, 8]));
	grandchild.dispose();
	expect(() => session.fork()).toThrow(DisposedError);
});
