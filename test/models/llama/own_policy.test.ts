import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Entries, full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { Llama } from '../../../lib/models/llama.js';
import type { Session } from '../../../lib/models/session.js';
import { worst } from '../../numbers.js';
import { pathOf, published, tokensFor } from './models.js';

let model: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	tokens = [...(await tokensFor(model, 300, 41))];
});

afterAll(() => model.dispose());

/** The score of an entry is what it receives now. */
const likeTova = (size: number, sinks = 0, recent = 0): Policy => ({
	name: 'mine',
	size,
	sinks,
	recent,
	heads: 'shared',
	score: ({ scores, received }) => scores.set(received),
});

/** The score of an entry is the sum of what it received. */
const likeH2o = (size: number): Policy => ({
	name: 'mine',
	size,
	sinks: 0,
	recent: Math.floor(size / 2),
	heads: 'own',
	score: ({ scores, received }) => {
		for (let j = 0; j < scores.length; j++) scores[j]! += received[j]!;
	},
});

const likeWindow = (size: number, sinks: number): Policy => ({
	name: 'mine',
	size,
	sinks,
	recent: 0,
	heads: 'shared',
	score: ({ scores, positions }) => scores.set(positions),
});

async function keptBy(session: Session, sequence = 0): Promise<Int32Array[]> {
	const { layers, kvHeads } = session.model.config;
	return Promise.all(Array.from({ length: layers * kvHeads }, (_, i) => session.kept(Math.floor(i / kvHeads), i % kvHeads, sequence)));
}

/** All alike: the lowest position goes. */
const alike = (size: number, sinks: number): Policy => ({ ...likeWindow(size, sinks), score: ({ scores }) => scores.fill(1) });

describe.each(['original', 'cache'] as const)('positions: %s', (positions) => {
	test.each([
		['tova', tova(20), likeTova(20)],
		['tova with sinks and recent', tova(19, { sinks: 2, recent: 4 }), likeTova(19, 2, 4)],
		['tova(1)', tova(1), likeTova(1)],
		['h2o', h2o(15), likeH2o(15)],
		['h2o(1)', h2o(1), likeH2o(1)],
		['window', window(12, { sinks: 3 }), likeWindow(12, 3)],
		['window, by ties alone', window(12, { sinks: 3 }), alike(12, 3)],
	])('%s, written as a function, keeps the same states', async (_, built, own) => {
		for (const dtype of ['f32', 'f16'] as const) {
			using right = model.session({ cache: built, positions, dtype });
			using session = model.session({ cache: own, positions, dtype });
			for (const token of tokens.slice(0, 100)) {
				const logits = await right.next([token]);
				expect(worst(await session.next([token]), logits)).toBe(0);
				expect(await keptBy(session)).toEqual(await keptBy(right));
			}
			using fork = session.fork();
			await fork.append(tokens.slice(100, 140)); // many at once
			await right.append(tokens.slice(100, 140));
			expect(await keptBy(fork)).toEqual(await keptBy(right));
			expect(session.position).toBe(100);
		}
	});
});

test('it is told of every layer, sequence and head, the new entry last', async () => {
	const seen: Entries[] = [];
	const spy: Policy = { ...likeTova(4), score: (entries) => seen.push(structuredClone(entries)) };
	using session = model.session({ cache: [spy, ...Array(model.config.layers - 1).fill(full())], batch: 2 });
	await session.append([tokens.slice(0, 6), tokens.slice(6, 12)]);
	expect(seen.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 12 }, (_, i) => i % 2));
	for (const [i, { layer, head, positions, received, scores }] of seen.entries()) {
		const position = Math.floor(i / 2);
		expect([layer, head, positions.at(-1)]).toEqual([0, 0, position]);
		expect(positions).toHaveLength(Math.min(position, 4) + 1);
		expect(Math.abs(received.reduce((a, b) => a + b, 0) - 1)).toBeLessThan(1e-5);
		expect([...scores]).toEqual(Array(positions.length).fill(0));
	}
});

test('sequences of different lengths', async () => {
	const { layers } = model.config;
	const mixed = (policy: Policy) => [tova(9), ...Array(layers - 1).fill(policy)];
	using right = model.session({ cache: mixed(tova(7)), batch: 3 });
	using session = model.session({ cache: mixed(likeTova(7)), batch: 3 });
	for (const lists of [
		[tokens.slice(0, 20), tokens.slice(20, 40), tokens.slice(40, 60)],
		[[5], [], [7, 8, 9]],
		[[], tokens.slice(0, 15), [3]],
	]) {
		await right.append(lists);
		await session.append(lists);
		expect(session.sequencePositions).toEqual(right.sequencePositions);
		for (let b = 0; b < 3; b++) expect(await keptBy(session, b), `sequence ${b}`).toEqual(await keptBy(right, b));
	}
});

test.each([0, 1])('one that throws in layer %i leaves a session that goes on, or says why it cannot', async (at) => {
	const { layers } = model.config;
	let calls = 0;
	const bad: Policy = {
		...likeTova(10),
		score: (entries) => {
			if (++calls === 30) throw new RangeError('mine');
			entries.scores.set(entries.received);
		},
	};
	const cache = (policy: Policy) => Array.from({ length: layers }, (_, i) => (i === at ? policy : i % 2 ? h2o(9) : tova(10)));
	using session = model.session({ cache: cache(bad) });
	await expect(session.append(tokens.slice(0, 60))).rejects.toThrow('mine');
	expect(session.position).toBe(29);
	const going = await session.append(tokens.slice(29, 60)).then(
		() => null,
		(error: Error) => error,
	);
	if (going) {
		expect(going.message).toMatch(/session/);
		return;
	}
	using right = model.session({ cache: cache(tova(10)) });
	await right.append(tokens.slice(0, 60));
	expect(await keptBy(session)).toEqual(await keptBy(right));
	expect(worst(await session.next([]), await right.next([]))).toBeLessThanOrEqual(2e-4);
});

test('scores that are no numbers drop some state and harm nothing', async () => {
	using session = model.session({ cache: { ...likeTova(5), score: ({ scores }) => scores.fill(NaN) } });
	await session.append(tokens.slice(0, 30));
	for (const kept of await keptBy(session)) {
		expect(kept).toHaveLength(5);
		expect(new Set(kept).size).toBe(5);
		expect(kept.every((position) => position >= 0 && position < 30)).toBe(true);
	}
	expect((await session.next([1])).every(Number.isFinite)).toBe(true);
});

test('memory stays flat and comes back', async () => {
	const step = async () => {
		await synchronize();
		return memory().bytes;
	};
	using warm = model.session({ cache: likeH2o(8) });
	await warm.append([1]);
	const before = await step();
	const session = model.session({ cache: likeH2o(8) });
	await session.append(tokens.slice(0, 20));
	const held = await step();
	for (const token of tokens) {
		await session.append([token]);
		expect(await step()).toBe(held);
	}
	session.dispose();
	expect(await step()).toBe(before);
});
