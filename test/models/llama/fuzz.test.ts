import fs from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { h2o, tova } from '../../../lib/cache/index.js';
import { openPretrained } from '../../../lib/io/open_pretrained.js';
import type { WeightType } from '../../../lib/io/pretrained.js';
import { Llama } from '../../../lib/models/llama.js';
import { Random } from '../../../lib/random.js';
import { temporary } from '../../files.js';
import { llamaGguf } from '../../io/llama_gguf.js';
import { llama2cBytes } from '../../io/models.js';
import { mutated } from '../../io/mutations.js';
import { madeSizes, madeTensors, madeTokenizer } from './models.js';

/** Files of small models by format: what native code maps and reads. */
async function specimens(): Promise<Map<string, Buffer>> {
	const folder = await temporary();
	const sizes = { ...madeSizes, dim: 256, headDim: 32, hidden: 256, layers: 1, vocabulary: 300 };
	const made = new Map<string, Buffer>([['legacy', Buffer.from(llama2cBytes(madeSizes, madeTensors(), { version: 0 }))]]);
	made.set('v1', Buffer.from(llama2cBytes(madeSizes, madeTensors(), { version: 1 })));
	const large = path.join(folder, 'large.bin');
	await fs.writeFile(large, llama2cBytes(sizes, madeTensors(5, sizes), { version: 0 }));
	const files = await openPretrained(large);
	for (const type of ['f16', 'q8_0', 'q4_0', 'q4_k', 'q6_k'] as WeightType[]) made.set(type, await llamaGguf(files, type));
	return made;
}

test('spoilt files that are taken are read and run without leaving their memory', async () => {
	const folder = await temporary();
	const tokenizer = path.join(folder, 'tokenizer.bin');
	await fs.writeFile(tokenizer, madeTokenizer());
	const random = new Random(77);
	let [refused, ran] = [0, 0];
	for (const [format, bytes] of await specimens()) {
		for (let i = 0; i < 300; i++) {
			const { bytes: spoilt, what } = mutated(random, i % 2 ? bytes : headed(random, bytes));
			const place = path.join(folder, `${format}-${i}`);
			await fs.writeFile(place, spoilt);
			try {
				using model = await Llama.load(place, { verify: i % 4 < 2, tokenizer });
				using session = model.session({
					cache: i % 3 ? tova(3) : h2o(2),
					dtype: i % 5 ? 'f32' : 'f16',
					positions: i % 7 ? 'original' : 'cache',
				});
				await session.append([1, 7, 9, 2, 5, 11, 3, 8, 4, 6]);
				expect((await session.next([3])).length).toBe(model.config.vocabulary);
				ran++;
			} catch (error) {
				const { code } = error as { code?: string };
				expect(['ERR_FORMAT', 'ERR_OUT_OF_MEMORY', 'ERR_ARGUMENT'], `${format}, ${what}: ${(error as Error).stack}`).toContain(code);
				refused++;
			}
			await fs.rm(place);
		}
	}
	expect(ran).toBeGreaterThan(400);
	expect(refused).toBeGreaterThan(200);
}, 120_000);

/** With something wrong near its beginning already, where sizes stand. */
function headed(random: Random, bytes: Buffer): Buffer {
	const copy = Buffer.from(bytes);
	copy[random.integer(Math.min(400, copy.length))]! ^= 1 << random.integer(8);
	return copy;
}
