import { expect, test } from 'vitest';
import { tova } from '../../lib/cache/index.js';
import { Llama } from '../../lib/models/llama.js';
import { file } from '../files.js';
import { made, pathOf, published } from '../models/llama/models.js';
import { oplus } from './run.js';
import { json, refusal } from './said.js';

const place = () => (published ? pathOf('stories260K') : made());
const states = ['--cache', 'tova', '--states', '24'];

test.each(['bf16', 'q8_0'] as const)('generate and perplexity with --dtype %s: what the library makes of such weights', async (dtype) => {
	const model = await place();
	const text = 'Once upon a time, a day and a night.';
	using llama = await Llama.load(model, { dtype });
	using running = llama.session({ cache: tova(24) });
	const ids: number[] = [];
	for await (const { token } of running.generate(text, { temperature: 0, maxTokens: 24, ignoreEos: true })) ids.push(token);
	const args = ['--temperature', '0', '--max-tokens', '24', '--ignore-eos', '--prompt', text];
	const generated = await oplus(['generate', '--model', model, '--dtype', dtype, ...states, ...args, '--json']);
	expect(json(generated)).toMatchObject({ dtype, ids });

	using scoring = llama.session({ cache: tova(24) });
	const { nll } = await scoring.score(llama.tokenizer.encode(text));
	const story = await file('story.txt', text);
	const scored = await oplus(['perplexity', '--model', model, '--dtype', dtype, ...states, '--text', story, '--json']);
	const found = json<{ nll: number; dtype: string }>(scored);
	expect(found.dtype).toBe(dtype);
	expect(found.nll).toBeCloseTo(nll.subarray(1).reduce((sum, loss) => sum + loss, 0) / (nll.length - 1), 5);
	using plain = await Llama.load(model);
	using other = plain.session({ cache: tova(24) });
	expect((await other.score(plain.tokenizer.encode(text))).nll).not.toEqual(nll);
});

test('without it, weights are as they are; what is no type of theirs is refused', async () => {
	const model = await made();
	expect(json(await oplus(['generate', '--model', model, '--prompt', 'a', '--max-tokens', '2', '--json']))).toMatchObject({ dtype: null });
	const refused = await oplus(['generate', '--model', model, '--dtype', 'q4_0', '--prompt', 'a']);
	expect(refusal(refused, 2)).toContain("argument 'q4_0' is invalid. expected one of f32, f16, bf16, q8_0");
});
