import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Entries, full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory, synchronize } from '../../../lib/device.js';
import { Llama } from '../../../lib/models/llama.js';
import { worst } from '../../harness.js';
import { names, pathOf, tokensFor } from './models.js';

let model: Llama;
let prompt: Int32Array;

beforeAll(async () => {
	model = await Llama.load(await pathOf(names.includes('stories260K') ? 'stories260K' : 'made'));
	prompt = await tokensFor(model, 130);
});
afterAll(() => model?.dispose());

/** What every entry of every layer and head receives, when a prompt is taken in token by token and nothing is evicted. */
async function received(heads: Policy['heads'], sums: boolean): Promise<Map<string, Entries>> {
	const found = new Map<string, Entries>();
	const policy: Policy = {
		name: 'watch',
		size: prompt.length,
		sinks: 0,
		recent: 0,
		heads,
		score: (entries) => {
			for (let j = 0; j < entries.scores.length; j++) entries.scores[j] = (sums ? entries.scores[j]! : 0) + entries.received[j]!;
			found.set(`${entries.layer} ${entries.head}`, entries);
		},
	};
	using session = model.session({ cache: policy });
	await session.append(prompt);
	return found;
}

/** The S entries that stay, from the scores of all: the lowest go first, on a tie the lowest position; protected ones never. */
function staying({ positions, scores }: Entries, { size, sinks, recent }: Policy): number[] {
	const newest = Math.max(...positions);
	const entries = Array.from(positions, (position, j) => ({ position, score: scores[j]! }));
	const may = entries.filter(({ position }) => position >= sinks && position <= newest - recent);
	may.sort((a, b) => a.score - b.score || a.position - b.position);
	const gone = new Set(may.slice(0, entries.length - size));
	return entries
		.filter((entry) => !gone.has(entry))
		.map(({ position }) => position)
		.sort((a, b) => a - b);
}

describe("prefill: 'select'", () => {
	test.each([
		['tova', tova(40)],
		['tova with sinks and recent', tova(40, { sinks: 3, recent: 10 })],
		['h2o', h2o(41)],
	] as const)('%s keeps what received most, of full attention over the prompt', async (_, policy) => {
		const all = await received(policy.heads, policy.memory === 1);
		using session = model.session({ cache: policy, prefill: 'select' });
		await session.append(prompt);
		const heads = policy.heads === 'own' ? model.config.kvHeads : 1;
		expect(all.size).toBe(heads * model.config.layers);
		for (let layer = 0; layer < model.config.layers; layer++) {
			for (let head = 0; head < heads; head++) {
				expect([...(await session.kept(layer, head))], `layer ${layer}, head ${head}`).toEqual(
					staying(all.get(`${layer} ${head}`)!, policy),
				);
			}
		}
	});

	test('a window keeps the newest, and the sinks', async () => {
		using session = model.session({ cache: window(20, { sinks: 4 }), prefill: 'select' });
		await session.append(prompt);
		const n = prompt.length;
		expect([...(await session.kept(2))]).toEqual([0, 1, 2, 3, ...Array.from({ length: 16 }, (_, i) => n - 16 + i)]);
	});

	test.each(['original', 'cache'] as const)(
		'logits are those of full attention, and the session goes on; positions %s',
		async (positions) => {
			using whole = model.session({ cache: full(), positions });
			const expected = Float32Array.from(await whole.next(prompt));
			using session = model.session({ cache: h2o(32), positions, prefill: 'select' });
			expect(worst(await session.next(prompt), expected)).toBeLessThan(1e-4);
			expect(session.position).toBe(prompt.length);
			// Going on is a step as always: the same as from the same states under `stream`.
			using copy = session.fork();
			const next = Float32Array.from(await session.next([42]));
			expect(worst(await copy.next([42]), next)).toBe(0);
			expect((await session.kept(0)).length).toBe(32);
			// A second prompt attends to what is held and to itself; a bound that holds all of it is attention without a selection.
			using roomy = model.session({ cache: h2o(2 * prompt.length + 1), positions, prefill: 'select' });
			await roomy.append(prompt);
			await roomy.append(prompt);
			await whole.append(prompt);
			expect(worst(await roomy.next([7]), Float32Array.from(await whole.next([7])))).toBeLessThan(1e-4);
		},
	);

	test('two prompts: the second selection is among what is held and what is new', async () => {
		using session = model.session({ cache: tova(24), prefill: 'select' });
		await session.append(prompt.subarray(0, 80));
		const before = new Set(await session.kept(1));
		await session.append(prompt.subarray(80));
		const after = await session.kept(1);
		expect(after.length).toBe(24);
		for (const position of after) expect(position >= 80 || before.has(position), `position ${position}`).toBe(true);
	});

	test('memory for the whole prompt is held in one layer at a time, and given back', async () => {
		using session = model.session({ cache: tova(16), prefill: 'select' });
		await session.append(prompt); // activations for as many rows, which stay with the model
		await synchronize();
		const before = memory().bytes;
		await session.append(prompt);
		await synchronize(); // a read is done a moment before its queue lets go of the memory
		expect(memory().bytes).toBe(before);
	});

	test('what it does not go with is refused', () => {
		expect(() => model.session({ cache: tova(8), prefill: 'select', batch: 2 })).toThrow(/batch is 2, expected 1/);
		const own: Policy = { ...tova(8), score: () => undefined };
		expect(() => model.session({ cache: own, prefill: 'select' })).toThrow(/prefill is select, expected 'stream'/);
		expect(() => model.session({ cache: tova(8), prefill: 'both' as 'select' })).toThrow(/prefill is both/);
	});
});
