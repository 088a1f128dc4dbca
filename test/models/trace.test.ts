import { describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../lib/cache/index.js';
import { Llama } from '../../lib/models/llama.js';
import { type Held, Trace } from '../../lib/models/trace.js';
import { names, pathOf, tokensFor } from './llama/models.js';

const policies: readonly (readonly [string, Policy])[] = [
	['full', full()],
	['window', window(12)],
	['window+4', window(12, { sinks: 4 })],
	['window of sinks alone: the new state goes', window(3, { sinks: 3 })],
	['h2o', h2o(12)],
	['h2o of one', h2o(1)],
	['tova', tova(12)],
	['tova with sinks', tova(9, { sinks: 2, recent: 3 })],
	['one of its own', { ...tova(7), name: 'newest goes', score: ({ positions, scores }) => scores.set(positions.map((p) => -p)) }],
];

/** Positions that a trace says are held after a step. */
function heldAfter(step: number, { left }: Held): number[] {
	return Array.from(left.keys()).filter((p) => p <= step && step < left[p]!);
}

const opened = new Map<string, Promise<Llama>>();
function open(name: string): Promise<Llama> {
	if (!opened.has(name))
		opened.set(
			name,
			pathOf(name).then((place) => Llama.load(place)),
		);
	return opened.get(name)!;
}

describe.each(names)('%s', (name) => {
	const run = async (cache: readonly Policy[] | Policy, steps: number) => {
		const model = await open(name);
		const { layers, kvHeads } = model.config;
		using session = model.session({ cache });
		const trace = new Trace(session, cache);
		const seen: number[][][][] = []; // by step, layer and head
		for (const token of await tokensFor(model, steps)) {
			await session.append([token]);
			await trace.look();
			const step: number[][][] = [];
			for (let layer = 0; layer < layers; layer++) {
				const heads: number[][] = [];
				for (let head = 0; head < kvHeads; head++) heads.push([...(await session.kept(layer, head))]);
				step.push(heads);
			}
			seen.push(step);
		}
		expect(trace.steps).toBe(steps);
		return { held: trace.held(), seen, model };
	};

	const check = ({ held, seen, model }: Awaited<ReturnType<typeof run>>, owns: (layer: number) => boolean) => {
		const sets = Array.from({ length: model.config.layers }, (_, layer) =>
			owns(layer) ? Array.from({ length: model.config.kvHeads }, (_, kvHead) => ({ layer, kvHead })) : [{ layer, kvHead: null }],
		).flat();
		expect(held.map(({ layer, kvHead }) => ({ layer, kvHead }))).toEqual(sets);
		for (const each of held) {
			for (const [step, layers] of seen.entries()) {
				const heads = each.kvHead === null ? layers[each.layer]! : [layers[each.layer]![each.kvHead]!];
				for (const kept of heads) expect(heldAfter(step, each), `step ${step}, layer ${each.layer}`).toEqual(kept);
			}
		}
	};

	test.each(policies)('%s: what is held after every step is what the session keeps', async (_, policy) => {
		check(await run(policy, 60), () => policy.heads === 'own');
	});

	test('another policy in each layer', async () => {
		const mixed = [h2o(10), tova(8), window(9, { sinks: 2 }), full(), h2o(5)];
		const { layers } = (await open(name)).config;
		const list = Array.from({ length: layers }, (_, i) => mixed[i]!);
		check(await run(list, 40), (layer) => list[layer]!.heads === 'own');
	});

	test('a prompt that one selection is made of: all is held until its last token', async () => {
		const model = await open(name);
		const cache = h2o(10);
		using session = model.session({ cache, prefill: 'select' });
		const trace = new Trace(session, cache);
		await session.append(await tokensFor(model, 30));
		await trace.look();
		for (const each of trace.held()) {
			for (let step = 0; step < 29; step++) expect(heldAfter(step, each)).toHaveLength(step + 1);
			expect(heldAfter(29, each)).toEqual([...(await session.kept(each.layer, each.kvHead!))]);
		}
	});
});

test('only of one sequence, from its beginning', async () => {
	const model = await open('made');
	using two = model.session({ cache: full(), batch: 2 });
	expect(() => new Trace(two, full())).toThrow('trace: the session has 2 sequences, expected 1');
	using fed = model.session({ cache: full() });
	await fed.append([1, 2, 3]);
	expect(() => new Trace(fed, full())).toThrow('trace: the session has been fed 3 tokens, expected none yet');
});

test('looking again without a new token changes nothing', async () => {
	const model = await open('made');
	using session = model.session({ cache: tova(4) });
	const trace = new Trace(session, tova(4));
	await session.append([1, 2, 3]);
	await trace.look();
	const before = trace.held();
	await trace.look();
	expect(trace.held()).toEqual(before);
	expect(before[0]!.left).toEqual(Int32Array.of(3, 3, 3));
});
