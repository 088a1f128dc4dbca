/** Whatever a decoder does, it does on every device as on the CPU. */
import fs from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Policy } from '../../../lib/cache/index.js';
import { devices } from '../../../lib/device.js';
import { openPretrained } from '../../../lib/io/open_pretrained.js';
import { Llama } from '../../../lib/models/llama.js';
import { Session } from '../../../lib/models/session.js';
import { temporary } from '../../files.js';
import { llamaGguf } from '../../io/llama_gguf.js';
import { folderOf } from '../../io/models.js';
import { worst } from '../../numbers.js';
import { made, madeSizes, madeTensors, madeTokenizer, pieces, tokensFor } from './models.js';
import { exact, openReference, type ReferenceModel, ReferenceSequence, single } from './reference.js';
import { type Plan, plans } from './reference_policy.js';

const both = ['original', 'cache'] as const;
type Positions = (typeof both)[number];

/** A policy for each layer of the made model. */
const mixed = [plans.tova(9), plans.h2o(8), plans.window(7, 2)];

let reference: ReferenceModel;
let cpu: Llama;
let tokens: number[];

beforeAll(async () => {
	cpu = await Llama.load(await made());
	reference = await openReference(cpu.path);
	tokens = [...(await tokensFor(cpu, 40, 11))];
});

afterAll(() => cpu.dispose());

/**
 * How far apart two right decoders may be: each as far from float64 as 4 times the most naive f32 decoder on these tokens (see runBeside).
 * @param model what the reference has read. @default the made model
 */
function boundFor(each: readonly Plan[], positions: Positions, list: readonly number[], model = reference): number {
	const [double, naive] = [exact, single].map((round) => new ReferenceSequence(model, { plans: each, positions, round }));
	const most = list.reduce((found, token) => Math.max(found, worst(double!.step(token), naive!.step(token))), 0);
	expect(most, 'a bound that means something').toBeLessThan(1e-4);
	return 8 * most;
}

const everywhere = (plan: Plan) => madeLayers.map(() => plan);
const madeLayers = Array.from({ length: madeSizes.layers });
const policiesOf = (each: readonly Plan[]): Policy[] => each.map(({ policy }) => policy);

/** States held, by layer and key-value head. */
async function keptBy(session: Session, sequence = 0): Promise<Int32Array[]> {
	const { layers, kvHeads } = session.model.config;
	return Promise.all(Array.from({ length: layers * kvHeads }, (_, i) => session.kept(Math.floor(i / kvHeads), i % kvHeads, sequence)));
}

async function expectSame(session: Session, right: Session, bound: number, what = ''): Promise<void> {
	expect(session.sequencePositions).toEqual(right.sequencePositions);
	const none = Array.from({ length: session.batch }, () => []);
	expect(worst(await session.next(none), await right.next(none)), what).toBeLessThanOrEqual(bound);
	for (let b = 0; b < session.batch; b++) expect(await keptBy(session, b), what).toEqual(await keptBy(right, b));
}

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	let model: Llama;

	beforeAll(async () => {
		model = await Llama.load(cpu.path, { device });
	});

	afterAll(() => model.dispose());

	describe.each(both)('positions: %s', (positions) => {
		/** A session on the device, and one on the CPU. */
		const pair = (each: readonly Plan[], options: { dtype?: 'f32' | 'f16'; batch?: number; prefill?: 'stream' | 'select' } = {}) =>
			[model, cpu].map((of) => of.session({ cache: policiesOf(each), positions, ...options })) as [Session, Session];

		test.each([plans.full(), plans.window(10, 2), plans.tova(9), plans.h2o(10)])(
			'$name: logits of every token, one by one and all at once, in f32 and f16',
			async (plan) => {
				const each = everywhere(plan);
				const list = tokens.slice(0, 26); // one by one they take long where kernels are emulated
				const naive = boundFor(each, positions, list);
				const whole: Float32Array[] = []; // logits in f32
				for (const dtype of ['f32', 'f16'] as const) {
					const [steps, right] = pair(each, { dtype });
					using _steps = steps;
					using _right = right;
					let bound = naive;
					for (const [i, token] of list.entries()) {
						const expected = (await right.next([token])).slice();
						if (dtype === 'f32') whole.push(expected);
						// In f16 the last bit may be rounded the other way, and all states after it change (see runBeside).
						else bound = Math.max(bound, naive + 2 * worst(expected, whole[i]!));
						expect(worst(await steps.next([token]), expected), `${dtype}, token ${i}`).toBeLessThanOrEqual(bound);
					}
					await expectSame(steps, right, bound, dtype);
					for (const cut of [[list], pieces(list, 15, 1)]) {
						using session = model.session({ cache: policiesOf(each), positions, dtype });
						for (const piece of cut) await session.append(piece);
						await expectSame(session, right, bound, `${dtype}, ${cut.length} pieces`);
					}
				}
			},
		);

		test('two sequences of different lengths side by side', async () => {
			const [session, right] = pair(mixed, { batch: 2 });
			using _session = session;
			using _right = right;
			const lists = [tokens.slice(0, 31), tokens.slice(20, 33)];
			const bound = Math.max(...lists.map((list) => boundFor(mixed, positions, list)));
			const cuts = [
				[0, 0],
				[9, 4],
				[10, 5],
				[10, 12],
				[31, 13],
			];
			for (const [i, from] of cuts.slice(0, -1).entries()) {
				const fed = lists.map((list, b) => list.slice(from[b], cuts[i + 1]![b]));
				for (const each of [session, right]) await each.append(fed);
				await expectSame(session, right, bound, `piece ${i}`);
			}
		});

		test.each([plans.tova(9, 1), plans.h2o(10), plans.window(8, 2)])("$name: prefill 'select'", async (plan) => {
			const [session, right] = pair(everywhere(plan), { prefill: 'select' });
			using _session = session;
			using _right = right;
			const bound = boundFor(everywhere(plans.full()), positions, tokens);
			for (const list of [tokens.slice(0, 25), [3], tokens.slice(25, 35), [4]]) {
				for (const each of [session, right]) await each.append(list);
				await expectSame(session, right, bound, `after ${session.position}`);
			}
		});

		test('a policy that is a function', async () => {
			const { score: _, ...tova } = plans.tova(7).policy;
			const cache: Policy = { ...tova, name: 'mine', score: ({ scores, received }) => scores.set(received) };
			using session = model.session({ cache, positions });
			using right = cpu.session({ cache, positions });
			const list = tokens.slice(0, 14);
			for (const each of [session, right]) await each.append(list);
			await expectSame(session, right, boundFor(everywhere(plans.tova(7)), positions, list));
		});

		test('losses of tokens', async () => {
			const [session, right] = pair(mixed);
			using _session = session;
			using _right = right;
			// Two of the logits' errors: that of the token's, and at most the largest of all in the logarithm of their sum.
			const bound = 2 * boundFor(mixed, positions, tokens);
			for (const list of [tokens.slice(0, 30), tokens.slice(30)]) {
				expect(worst((await session.score(list)).nll, (await right.score(list)).nll)).toBeLessThanOrEqual(bound);
			}
			await expectSame(session, right, bound);
		});

		test('forks go their own ways, and are fed together', async () => {
			const pairs = [pair(mixed)];
			const [first] = pairs;
			for (const each of first!) await each.append(tokens.slice(0, 12));
			pairs.push(first!.map((session) => session.fork()) as [Session, Session]);
			const ends = [tokens.slice(12, 18), tokens.slice(30, 34)];
			const bound = Math.max(...ends.map((end) => boundFor(mixed, positions, [...tokens.slice(0, 12), ...end, 5, 6])));
			for (const [i, end] of ends.entries()) for (const each of pairs[i]!) await each.append(end);
			for (const way of [0, 1] as const) {
				await Session.nextTogether(
					pairs.map((each) => each[way]),
					[5, 6],
				);
			}
			for (const [session, right] of pairs) {
				await expectSame(session, right, bound);
				session.dispose();
				right.dispose();
			}
		});

		test.each(['f32', 'f16'] as const)('%s: a snapshot goes from device to device, bit by bit', async (dtype) => {
			const more = tokens.slice(25, 30);
			const naive = boundFor(mixed, positions, [...tokens.slice(0, 25), ...more]);
			for (const [from, to] of [
				[cpu, model],
				[model, cpu],
			] as const) {
				using session = from.session({ cache: policiesOf(mixed), positions, dtype });
				await session.append(tokens.slice(0, 25));
				const blob = await session.snapshot();
				using back = await Session.restore(to, blob);
				await expectSame(back, session, 0);
				expect(Buffer.compare(await back.snapshot(), blob)).toBe(0);
				using whole = cpu.session({ cache: policiesOf(mixed), positions });
				await whole.append([...tokens.slice(0, 25), ...more]);
				for (const each of [back, session]) await each.append(more);
				const apart = dtype === 'f16' ? 2 * worst(await whole.next([]), await session.next([])) : 0;
				await expectSame(back, session, naive + apart);
			}
		});
	});

	test.each(['f16', 'bf16', 'q8_0', 'q4_0', 'q4_k', 'q6_k'] as const)('a GGUF of %s', async (type) => {
		const { vocabulary } = madeSizes;
		const sizes = { dim: 256, hidden: 256, layers: 1, heads: 4, kvHeads: 2, headDim: 64, vocabulary };
		const widths = { hidden_size: sizes.dim, intermediate_size: sizes.hidden, num_hidden_layers: 1, num_attention_heads: sizes.heads };
		const more = { num_key_value_heads: 2, vocab_size: vocabulary, max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10000 };
		const config = { architectures: ['LlamaForCausalLM'], tie_word_embeddings: true, bos_token_id: 1, eos_token_id: 2, ...widths, ...more };
		const files = await openPretrained(await folderOf(config, madeTensors(7, sizes)));
		const folder = await temporary();
		const [place, tokenizer] = [path.join(folder, 'made.gguf'), path.join(folder, `tok${vocabulary}.bin`)];
		await fs.writeFile(place, await llamaGguf(files, type));
		await fs.writeFile(tokenizer, madeTokenizer());
		const list = tokens.slice(0, 6);
		const bound = boundFor([plans.tova(4)], 'original', list, await openReference(place));
		using there = await Llama.load(place, { device, tokenizer });
		using here = await Llama.load(place, { tokenizer });
		using session = there.session({ cache: plans.tova(4).policy });
		using right = here.session({ cache: plans.tova(4).policy });
		for (const part of [list.slice(0, 5), list.slice(5)]) {
			for (const each of [session, right]) await each.append(part);
			await expectSame(session, right, bound, `after ${session.position}`);
		}
	});
});
