import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { full } from '../../../lib/cache/index.js';
import { Llama } from '../../../lib/models/llama.js';
import { worst } from '../../numbers.js';
import { pathOf, pieces, published, tokensFor } from './models.js';
import { exact, lossOf, openReference, ReferenceSequence, single } from './reference.js';
import { plans } from './reference_policy.js';

/** What an independent forward pass in float64 gave (of published models), or the reference here (of the made one). */
interface Golden {
	readonly prompt: string;
	readonly prompt_ids: readonly number[];
	readonly logits_per_prompt_position: readonly (readonly number[])[];
	/** The prompt, and what follows if the likeliest token is always taken. */
	readonly greedy_ids: readonly number[];
	/** Of every token but the first. */
	readonly nll_of_greedy_ids: readonly number[];
}

const subjects = published
	? [
			{ name: 'stories260K.bin', place: 'stories260K/stories260K.bin', golden: 'stories260K_bos' },
			{ name: 'stories260K.bin', place: 'stories260K/stories260K.bin', golden: 'stories260K_prompt' },
			{ name: 'stories260K_export_v1.bin', place: 'stories260K/stories260K_export_v1.bin', golden: 'stories260K_bos' },
			{ name: 'stories260K_export_v1.bin', place: 'stories260K/stories260K_export_v1.bin', golden: 'stories260K_prompt' },
			{ name: 'tinystories656k', place: 'tinystories656k', golden: 'tinystories656k' },
		]
	: [{ name: 'made', place: 'made', golden: 'made' }];

const highest = (logits: ArrayLike<number>) => {
	let best = 0;
	for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
	return best;
};

async function open(place: string): Promise<string> {
	return published ? path.join(published, place) : pathOf('made');
}

async function goldenOf(name: string, model: Llama): Promise<Golden> {
	if (published) return JSON.parse(await fs.readFile(path.join(published, 'golden', `${name}.json`), 'utf8'));
	const prompt_ids = [...(await tokensFor(model, 12))];
	const reference = new ReferenceSequence(await openReference(model.path), sequenceOptions(model));
	const logits = prompt_ids.map((token) => reference.step(token));
	const greedy = [...prompt_ids];
	const nll = prompt_ids.slice(1).map((token, i) => lossOf(logits[i]!, token));
	for (let last = logits.at(-1)!; greedy.length < 100; last = reference.step(greedy.at(-1)!)) {
		greedy.push(highest(last));
		nll.push(lossOf(last, greedy.at(-1)!));
	}
	return { prompt: '', prompt_ids, logits_per_prompt_position: logits.map((row) => [...row]), greedy_ids: greedy, nll_of_greedy_ids: nll };
}

const sequenceOptions = (model: Llama) => ({ plans: Array(model.config.layers).fill(plans.full()), positions: 'original' as const });

describe.each(subjects)('$name, $golden', ({ name, place, golden }) => {
	const opened = (async () => {
		const model = await Llama.load(await open(place));
		return { model, golden: await goldenOf(golden, model) };
	})();

	test('the prompt becomes the tokens that it should', async () => {
		const { model, golden } = await opened;
		const { bos } = model.config;
		const text = golden.prompt.replace(model.tokenizer.name(bos!), ''); // the begin is put in front by encoding
		if (name !== 'made') expect([...model.tokenizer.encode(text)]).toEqual(text === '' ? [bos] : golden.prompt_ids);
		expect(golden.logits_per_prompt_position).toHaveLength(golden.prompt_ids.length);
	});

	test('logits at every position of the prompt, one by one, are within 1e-4', async () => {
		const { model, golden } = await opened;
		using session = model.session({ cache: full() });
		for (const [i, token] of golden.prompt_ids.entries()) {
			expect(worst(await session.next([token]), golden.logits_per_prompt_position[i]!), `position ${i}`).toBeLessThanOrEqual(1e-4);
		}
	});

	test('all at once, from every position of the prompt', async () => {
		const { model, golden } = await opened;
		for (const [i, right] of golden.logits_per_prompt_position.entries()) {
			using session = model.session({ cache: full() });
			expect(worst(await session.next(golden.prompt_ids.slice(0, i + 1)), right), `position ${i}`).toBeLessThanOrEqual(1e-4);
		}
	});

	test('cut at random places', async () => {
		const { model, golden } = await opened;
		for (let seed = 0; seed < 20; seed++) {
			using session = model.session({ cache: full() });
			let at = 0;
			for (const piece of pieces([...golden.prompt_ids], 5, seed)) {
				at += piece.length;
				expect(worst(await session.next(piece), golden.logits_per_prompt_position[at - 1]!)).toBeLessThanOrEqual(1e-4);
			}
		}
	});

	test('greedy tokens', async () => {
		const { model, golden } = await opened;
		const { prompt_ids, greedy_ids } = golden;
		using session = model.session({ cache: full() });
		const made: number[] = [...prompt_ids];
		const maxTokens = greedy_ids.length - prompt_ids.length;
		let text = '';
		for await (const piece of session.generate(prompt_ids, { temperature: 0, maxTokens, ignoreEos: true })) {
			made.push(piece.token);
			text += piece.text;
		}
		expect(made).toEqual(greedy_ids);
		if (golden.prompt === '' && name !== 'made') {
			expect(text).toBe(model.tokenizer.decode(greedy_ids));
			expect(text.startsWith('Once upon a time, there was a little girl named Lily. She loved to play outside in the park.')).toBe(true);
		}
	});

	test('their losses are as near to float64 as 4 times the naive decoder in f32', async () => {
		const { model, golden } = await opened;
		const { greedy_ids, nll_of_greedy_ids } = golden;
		const reference = await openReference(model.path);
		const sequence = (round: typeof exact) => new ReferenceSequence(reference, { ...sequenceOptions(model), round });
		const [double, naive] = [sequence(exact), sequence(single)];
		let bound = 0;
		for (const [i, token] of greedy_ids.slice(0, -1).entries()) {
			const right = nll_of_greedy_ids[i]!;
			expect(Math.abs(lossOf(double.step(token), greedy_ids[i + 1]!) - right), `the reference itself, token ${i}`).toBeLessThan(1e-9);
			bound = Math.max(bound, 4 * Math.abs(lossOf(naive.step(token), greedy_ids[i + 1]!) - right));
		}
		expect(bound).toBeLessThan(1e-3);
		using session = model.session({ cache: full() });
		const { nll, tokens } = await session.score(greedy_ids);
		expect([...tokens]).toEqual(greedy_ids);
		expect(nll[0]).toBeNaN();
		expect(worst(nll.subarray(1), nll_of_greedy_ids)).toBeLessThanOrEqual(bound);
	});
});
