/** What models of proteins hold: in a file of its own, where no other test's leavings are collected meanwhile. */
import { expect, test } from 'vitest';
import { memory, synchronize } from '../../lib/device.js';
import { attentionOf } from '../../lib/models/protein_attention.js';
import { proteinModel } from '../../lib/models/protein_model.js';
import { streamProteins } from '../../lib/models/protein_score.js';
import { proteinTokens } from '../../lib/models/protein_tokens.js';
import { file } from '../files.js';

const small = { dim: 16, layers: 2, heads: 2, hidden: 32, features: 16 };
const ids = Int32Array.from([proteinTokens.begin, 3, 14, 0, 19, 7, 7, 2, 11, 5, 16, proteinTokens.end]);

test('memory is back where it was, also when a record is left in the middle', async () => {
	using model = proteinModel('causal', small);
	const place = await file('x.fasta', `>a\n${'ACDEFGHIKL'.repeat(5)}\n>b\n${'MNPQRSTVWY'.repeat(500)}\n`);
	const counts = Float64Array.from({ length: 26 }, (_, i) => (i < 20 ? 10 + i : 0));
	const run = async () => {
		const controller = new AbortController();
		const during: number[] = [];
		const onResidues = () => {
			during.push(memory().bytes);
			controller.abort(new Error('enough'));
		};
		const all = async () => {
			for await (const _ of streamProteins(model, place, { counts, onResidues, signal: controller.signal }));
		};
		await expect(all()).rejects.toThrow('enough');
		await synchronize();
		return { during, after: memory().bytes };
	};
	const before = await run();
	expect(before.during).toHaveLength(1);
	expect(before.during[0]).toBeGreaterThan(before.after);
	expect(await run()).toEqual(before);
});

test.each(['performer', 'attention'] as const)('nothing of what is looked at stays in memory: %s', async (mixer) => {
	using model = proteinModel('causal', { ...small, mixer });
	await attentionOf(model, ids);
	await synchronize();
	const before = memory().bytes;
	await attentionOf(model, ids);
	await synchronize();
	expect(memory().bytes).toBe(before);
});
