import fs from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { ArgumentError, FormatError } from '../../lib/errors.js';
import { Forecaster } from '../../lib/models/forecaster.js';
import type { Performer } from '../../lib/models/performer.js';
import { ProteinSet, ProteinWindows, readProteins } from '../../lib/models/protein_data.js';
import { loadProtein, modeOf, proteinModel, saveProtein, trainProtein } from '../../lib/models/protein_model.js';
import { type ScoredProtein, scoreProtein, scoreWindows, streamProteins } from '../../lib/models/protein_score.js';
import { ProteinTally } from '../../lib/models/protein_tally.js';
import { encodeProtein, proteinTokens } from '../../lib/models/protein_tokens.js';
import { Random } from '../../lib/random.js';
import { saveModel } from '../../lib/train/save.js';
import { file, temporary } from '../files.js';

const { begin, end, size } = proteinTokens;
const small = { dim: 16, layers: 2, heads: 2, hidden: 32, features: 16 };

/** Proteins in which a residue says which one follows, but for the noise: one in ten is any. */
function grammar(records: number, seed = 1): string {
	const random = new Random(seed);
	const letters = 'ACDEFGHIKLMN';
	return Array.from({ length: records }, (_, i) => {
		let at = random.integer(12);
		const residues = Array.from({ length: 30 + random.integer(40) }, () => {
			at = random.uniform() < 0.1 ? random.integer(12) : (at + 5) % 12;
			return letters[at]!;
		});
		return `>P${i}\n${residues.join('')}\n`;
	}).join('');
}

const record = (id: string, length: number, seed = 1) => {
	const random = new Random(seed);
	return { id, description: '', sequence: Array.from({ length }, () => 'ACDEFGHIKLMNPQRSTVWY'[random.integer(20)]).join('') };
};

const counts = Float64Array.from({ length: 26 }, (_, i) => (i < 20 ? 10 + i : 0));

/** What a model says of some tokens, worked out once more. */
async function losses(model: Performer, ids: number[], targets: number[]) {
	using logits = noGrad(() => model.forward(ids));
	const tally = new ProteinTally(counts);
	tally.add(await logits.read(), targets);
	return tally.score();
}

describe.each([
	['causal', 'performer', 'softmax'],
	['causal', 'performer', 'relu'],
	['causal', 'attention', 'softmax'],
	['masked', 'performer', 'relu'],
	['masked', 'attention', 'softmax'],
] as const)('%s, %s (%s)', (mode, mixer, featureKind) => {
	const config = { ...small, mixer, featureKind };

	test('learns what frequencies do not know', async () => {
		const { train, test: held } = await readProteins(await file('x.fasta', grammar(600)));
		using model = proteinModel(mode, config);
		const reported: number[] = [];
		for await (const { loss } of trainProtein(model, train, { length: 48, batch: 8, steps: 300, rate: 5e-3, seed: 2 })) reported.push(loss);
		const found = await scoreWindows(model, new ProteinWindows(held, { mode, length: 48 }), { counts: train.counts });
		expect(reported).toHaveLength(30);
		expect(reported.at(-1)!).toBeLessThan(reported[0]!);
		// Twelve letters all as likely.
		expect(found.unigram.perplexity).toBeGreaterThan(11);
		expect(found.accuracy).toBeGreaterThan(2 * found.unigram.accuracy);
		expect(found.perplexity).toBeLessThan(0.7 * found.unigram.perplexity);
	});

	test('the score of a record is that of its windows, each by itself', async () => {
		using model = proteinModel(mode, config);
		const protein = record('p', 23);
		const residues = [...encodeProtein(protein.sequence)];
		const { id, tally } = await scoreProtein(model, protein, { counts, context: 10, number: 4, seed: 3 });
		expect(id).toBe('p');
		if (mode === 'masked') {
			expect(tally.residues).toBeGreaterThan(2);
			expect(tally.residues).toBeLessThan(20);
			const again = await scoreProtein(model, protein, { counts, context: 10, number: 4, seed: 3 });
			expect(again.tally.score()).toEqual(tally.score());
			return;
		}
		const tokens = [begin, ...residues, end];
		const expected = new ProteinTally(counts);
		for (let start = 0; start < 23; start += 10) {
			const stop = Math.min(start + 10, 23);
			using logits = noGrad(() => model.forward(tokens.slice(start, stop)));
			expected.add(await logits.read(), tokens.slice(start + 1, stop + 1));
		}
		expect(tally.score()).toEqual(expected.score());
		expect(tally.residues).toBe(23);
	});

	test('saved and loaded: the same bits', async () => {
		const folder = await temporary();
		using model = proteinModel(mode, { ...config, seed: 5 });
		await saveProtein(model, { length: 48, counts }, folder);
		const loaded = await loadProtein(folder);
		using other = loaded.model;
		expect(loaded.about).toEqual({ length: 48, counts });
		expect([modeOf(other), other.config]).toEqual([mode, model.config]);
		const logits = async (of: Performer) => {
			using found = noGrad(() => of.forward([begin, 1, 2, 3, end]));
			return found.read();
		};
		expect(await logits(other)).toEqual(await logits(model));
	});
});

test('masked: hidden residues alone are asked for, and what is hidden is not shown', async () => {
	using model = proteinModel('masked', small);
	// One residue in windows of four tokens is hidden: begin, hidden, end.
	const { tally } = await scoreProtein(model, record('p', 1), { counts, context: 4, number: 0 });
	const right = encodeProtein(record('p', 1).sequence)[0]!;
	expect(tally.score()).toEqual(await losses(model, [begin, proteinTokens.mask, end], [-1, right, -1]));
});

describe('streams', () => {
	const all = async (of: AsyncIterable<ScoredProtein & { stateBytes: number }>) => {
		const found = [];
		for await (const each of of) found.push(each);
		return found;
	};

	test.each(['performer', 'attention'] as const)('%s: what whole sequences give, record by record', async (mixer) => {
		using model = proteinModel('causal', { ...small, mixer });
		const list = [record('a', 300), record('b', 7, 2), record('c', 1, 3)];
		const place = await file('x.fasta', list.map(({ id, sequence }) => `>${id}\n${sequence}\n`).join(''));
		const found = await all(streamProteins(model, place, { counts, wanted: (id) => id !== 'b' }));
		expect(found.map(({ id }) => id)).toEqual(['a', 'c']);
		for (const [i, each] of [list[0]!, list[2]!].entries()) {
			const whole = (await scoreProtein(model, each, { counts, context: 1000, number: 0 })).tally.score();
			const streamed = found[i]!.tally.score();
			expect([streamed.residues, streamed.unigram]).toEqual([whole.residues, whole.unigram]);
			expect(Math.abs(streamed.nll - whole.nll)).toBeLessThan(1e-5);
		}
		// Per layer: heads · (1 + M · (1 + dim / heads)) floats; a cache grows instead.
		if (mixer === 'performer') expect(found.map(({ stateBytes }) => stateBytes)).toEqual([2, 2].map(() => 2 * 4 * 2 * (1 + 16 * 9)));
		// Keys and values of each layer, in a cache that begins with room for 64 and doubles.
		else expect(found.map(({ stateBytes }) => stateBytes)).toEqual([512, 64].map((room) => 2 * 2 * 4 * 16 * room));
	});

	test('Ctrl-C, and a model that knows what follows', async () => {
		using model = proteinModel('causal', small);
		const place = await file('x.fasta', `>a\n${record('a', 5000).sequence}\n`);
		const controller = new AbortController();
		const reason = new Error('enough');
		const streaming = all(streamProteins(model, place, { counts, signal: controller.signal, onResidues: () => controller.abort(reason) }));
		await expect(streaming).rejects.toBe(reason);
		using masked = proteinModel('masked', small);
		await expect(all(streamProteins(masked, place, { counts }))).rejects.toThrow('the model is masked, expected a causal one');
	});
});

describe('what does not fit', () => {
	test('windows of another mode, sets that are too small', async () => {
		using model = proteinModel('masked', small);
		const set = new ProteinSet();
		set.push([begin, ...encodeProtein('ACDEFGHIKL'), end]);
		const windows = new ProteinWindows(set, { mode: 'causal', length: 4 });
		await expect(scoreWindows(model, windows, { counts })).rejects.toThrow('windows are causal, expected masked as the model');
		expect(() => trainProtein(model, set, { length: 13 })).toThrow('the set has 12 tokens, expected at least 13');
		expect(() => trainProtein(model, set, { length: 4, steps: 0 })).toThrow(ArgumentError);
		expect(() => trainProtein(model, set, { length: 4, batch: 1.5 })).toThrow(ArgumentError);
		await expect(scoreProtein(model, record('p', 5), { counts, context: 3, number: 0 })).rejects.toThrow('context is 3');
	});

	test('folders that hold something else', async () => {
		const folder = await temporary();
		await expect(loadProtein(folder)).rejects.toThrow(FormatError);
		using model = proteinModel('causal', small);
		await saveProtein(model, { length: 48, counts }, folder);
		const about = path.join(folder, 'protein.json');
		const text = await fs.readFile(about, 'utf8');
		for (const [spoilt, message] of [
			[text.replace('"length": 48', '"length": 2'), '`length` is 2, expected an integer from 4'],
			[text.replace('"A": 10', '"A": -1'), '`counts.A` is -1'],
			[text.replace('"counts"', '"count"'), '`counts` is not there'],
			['[]', 'expected a JSON object'],
		] as const) {
			await fs.writeFile(about, spoilt);
			await expect(loadProtein(folder)).rejects.toThrow(message);
		}
		await fs.writeFile(about, text);
		using forecaster = new Forecaster({
			horizon: 2,
			lags: 4,
			dim: 8,
			heads: 2,
			layers: 1,
			columns: ['a'],
			scale: { mean: [0], std: [1] },
			context: 8,
		});
		await saveModel(forecaster, folder);
		await expect(loadProtein(folder)).rejects.toThrow(`the model is no Performer of ${size} tokens`);
	});
});
