import fs from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { full, h2o, tova, window } from '../../../lib/cache/index.js';
import { ArgumentError, DeviceError, FormatError } from '../../../lib/errors.js';
import { openPretrained } from '../../../lib/io/open_pretrained.js';
import { Llama } from '../../../lib/models/llama.js';
import { temporary } from '../../files.js';
import { folderOf } from '../../io/models.js';
import { runBeside } from './beside.js';
import { madeSizes, madeTensors, madeTokenizer, published, tokensFor } from './models.js';
import { openReference } from './reference.js';
import { plans } from './reference_policy.js';

/** A Hugging Face folder of its own: that of tinystories656k where it is, else of the made model. @returns its tokenizer, too */
async function folder(change: object = {}): Promise<{ place: string; tokenizer: string }> {
	if (published) {
		const place = await temporary();
		const from = path.join(published, 'tinystories656k');
		for (const name of await fs.readdir(from)) await fs.writeFile(path.join(place, name), await fs.readFile(path.join(from, name)));
		const config = JSON.parse(await fs.readFile(path.join(place, 'config.json'), 'utf8'));
		await fs.writeFile(path.join(place, 'config.json'), JSON.stringify({ ...config, ...change }));
		return { place, tokenizer: place };
	}
	const { dim, hidden, layers, heads, kvHeads, vocabulary } = madeSizes;
	const sizes = { hidden_size: dim, intermediate_size: hidden, num_hidden_layers: layers, num_attention_heads: heads };
	const more = { num_key_value_heads: kvHeads, vocab_size: vocabulary, max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10000 };
	const config = { architectures: ['LlamaForCausalLM'], tie_word_embeddings: true, bos_token_id: 1, eos_token_id: 2, ...sizes, ...more };
	const place = await folderOf({ ...config, ...change }, madeTensors());
	const tokenizer = path.join(place, `tok${vocabulary}.bin`);
	await fs.writeFile(tokenizer, madeTokenizer());
	return { place, tokenizer };
}

test.each([
	['full', plans.full()],
	['tova', plans.tova(24)],
	['h2o', plans.h2o(25)],
	['window with sinks', plans.window(24, 4)],
	['a window smaller than the model’s own', plans.window(9)],
])("Mistral's sliding window: a query sees the 16 newest positions, itself included, under %s", async (_, plan) => {
	const { place, tokenizer } = await folder({ architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 16 });
	using model = await Llama.load(place, { tokenizer });
	expect(model.config.slidingWindow).toEqual(Array(model.config.layers).fill(16));
	const reference = await openReference(place);
	const tokens = [await tokensFor(model, 70, 71), await tokensFor(model, 30, 72)];
	for (const positions of ['original', 'cache'] as const) {
		const each = Array(model.config.layers).fill(plan);
		// States past the window receive nothing: exact ties, of which the lowest position goes.
		expect((await runBeside(model, reference, { plans: each, positions, tokens })).ties).toBe(0);
	}
	// Chunks are another way through the code.
	using whole = model.session({ cache: plan.policy });
	using one = model.session({ cache: plan.policy });
	for (const token of tokens[0]!) await one.append([token]);
	const [a, b] = [await whole.next(tokens[0]!), await one.next([])];
	expect(Math.max(...a.map((x, i) => Math.abs(x - b[i]!)))).toBeLessThan(2e-4);
	expect(await whole.kept(0)).toEqual(await one.kept(0));
});

test('the sliding window matters', async () => {
	const plain = await folder();
	const narrow = await folder({ architectures: ['MistralForCausalLM'], model_type: 'mistral', sliding_window: 16 });
	using first = await Llama.load(plain.place, { tokenizer: plain.tokenizer });
	using second = await Llama.load(narrow.place, { tokenizer: narrow.tokenizer });
	using all = first.session({ cache: full() });
	using some = second.session({ cache: full() });
	const tokens = await tokensFor(first, 17, 73);
	expect(await some.next(tokens.subarray(0, 16))).toEqual((await all.next(tokens.subarray(0, 16))).slice());
	const [a, b] = [await all.next(tokens.subarray(16)), await some.next(tokens.subarray(16))];
	expect(Math.max(...a.map((x, i) => Math.abs(x - b[i]!)))).toBeGreaterThan(1e-3);
});

test.each(['model.layers.1.mlp.up_proj.weight', 'model.layers.0.input_layernorm.weight', 'model.embed_tokens.weight'])(
	'a weight of %s that is NaN',
	async (name) => {
		const { place, tokenizer } = await folder();
		const weight = (await openPretrained(place)).weights.get(name)!;
		const at = weight.offset + 4 * 17;
		const bytes = await fs.readFile(weight.path);
		for (const [value, what] of [
			[NaN, 'NaN'],
			[-Infinity, 'infinity'],
		] as const) {
			bytes.writeFloatLE(value, at);
			await fs.writeFile(weight.path, bytes);
			const error = await Llama.load(place, { tokenizer }).catch((thrown: unknown) => thrown);
			expect(error, what).toBeInstanceOf(FormatError);
			expect(error).toMatchObject({ path: weight.path, offset: at });
			expect((error as FormatError).message).toContain(name.replace(/\.weight$/, ''));
		}
		bytes.writeFloatLE(NaN, at);
		await fs.writeFile(weight.path, bytes);
		using model = await Llama.load(place, { tokenizer, verify: false });
		for (const cache of [full(), tova(4), h2o(3), window(4)]) {
			using session = model.session({ cache });
			const pieces: number[] = [];
			const error = await (async () => {
				// Token 0 has weight 17 of its row in the embedding.
				for await (const { token } of session.generate([0, 5, 0, 6, 0, 7], { temperature: 0, maxTokens: 20 })) pieces.push(token);
			})().catch((thrown: unknown) => thrown);
			expect(error).toBeInstanceOf(Error);
			expect(error instanceof ArgumentError || error instanceof DeviceError || error instanceof FormatError).toBe(true);
			expect((error as Error).message).toContain('NaN');
			expect(pieces).toEqual([]);
		}
	},
);
