import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { ArgumentError, ShapeError } from '../../lib/errors.js';
import { aminoAcids } from '../../lib/io/fasta.js';
import {
	accessionOf,
	type ProteinMode,
	type ProteinSet,
	ProteinWindows,
	partOf,
	question,
	readProteins,
} from '../../lib/models/protein_data.js';
import { ProteinTally } from '../../lib/models/protein_tally.js';
import { encodeProtein, proteinTokens } from '../../lib/models/protein_tokens.js';
import { Random } from '../../lib/random.js';
import { file } from '../files.js';

const { begin, end, mask, size } = proteinTokens;

/** A FASTA file of random proteins, and what is in it. */
async function made(records: number, length = 60) {
	const random = new Random(5);
	const list = Array.from({ length: records }, (_, i) => ({
		id: `sp|P${i}|NAME${i}_TEST`,
		sequence: Array.from({ length: 1 + random.integer(2 * length) }, () => aminoAcids[random.integer(20)]).join(''),
	}));
	return { list, place: await file('x.fasta', list.map(({ id, sequence }) => `>${id} made\n${sequence}\n`).join('')) };
}

describe('tokens', () => {
	test('ids are fixed', () => {
		expect([...encodeProtein('ACDEFGHIKLMNPQRSTVWYXBZUOJ')]).toEqual(Array.from({ length: 26 }, (_, i) => i));
		expect([...encodeProtein(Buffer.from('acYj'))]).toEqual([0, 1, 19, 25]);
		expect([begin, end, mask, size]).toEqual([26, 27, 28, 29]);
	});

	test.each(['M*', 'M-', 'M é', 'M\0'])('%j is no protein', (text) => {
		expect(() => encodeProtein(text)).toThrow(ArgumentError);
		expect(() => encodeProtein(text)).toThrow('at place 1');
	});
});

describe('parts', () => {
	test('by the SHA-256 of the accession: 8, 1 and 1 of 10', () => {
		const share = (text: string) => Number.parseInt(createHash('sha256').update(text).digest('hex').slice(0, 8), 16) / 2 ** 32;
		const found = { train: 0, validation: 0, test: 0 };
		for (let i = 0; i < 5000; i++) {
			const part = partOf(`tr|A0A${i}|NAME${i}_X`);
			const x = share(`A0A${i}`);
			expect(part).toBe(x < 0.8 ? 'train' : x < 0.9 ? 'validation' : 'test');
			found[part]++;
		}
		// Five deviations of the binomial distribution.
		expect(Math.abs(found.train - 4000)).toBeLessThan(5 * Math.sqrt(5000 * 0.8 * 0.2));
		expect(Math.abs(found.test - 500)).toBeLessThan(5 * Math.sqrt(5000 * 0.1 * 0.9));
	});

	test('names that are not as UniProt writes them count as a whole', () => {
		expect(accessionOf('sp|P53508|CSSA1_ECOLX')).toBe('P53508');
		expect(accessionOf('gene|7')).toBe('gene|7');
		expect(partOf('sp|P53508|A_B')).toBe(partOf('tr|P53508|C_D'));
	});

	test('a file is divided, counted and loses nothing', async () => {
		const { list, place } = await made(400);
		const parts = await readProteins(place);
		const counts = new Float64Array(26);
		for (const part of ['train', 'validation', 'test'] as const) {
			const wanted = list.filter(({ id }) => partOf(id) === part);
			expect(wanted.length).toBeGreaterThan(10);
			expect([...parts[part].tokens]).toEqual(wanted.flatMap(({ sequence }) => [begin, ...encodeProtein(sequence), end]));
			expect(parts[part].records).toBe(wanted.length);
			expect(parts[part].residues).toBe(wanted.reduce((sum, { sequence }) => sum + sequence.length, 0));
			for (let id = 0; id < 26; id++) counts[id]! += parts[part].counts[id]!;
		}
		const all = list.map(({ sequence }) => sequence).join('');
		expect([...counts]).toEqual([...aminoAcids].map((letter) => all.split(letter).length - 1));
	});
});

describe('windows', () => {
	let set: ProteinSet;
	const some = async () => (set ??= (await readProteins((await made(900)).place)).train);

	test('causal: side by side, each asks for the residue that follows', async () => {
		const { tokens } = await some();
		const windows = new ProteinWindows(set, { mode: 'causal', length: 50 });
		expect(windows.length).toBe(Math.floor((tokens.length - 1) / 50));
		const { ids, targets } = windows.arrays([0, 7, windows.length - 1]);
		for (const [b, window] of [0, 7, windows.length - 1].entries()) {
			for (let t = 0; t < 50; t++) {
				const next = tokens[window * 50 + t + 1]!;
				expect([ids[b * 50 + t], targets[b * 50 + t]]).toEqual([tokens[window * 50 + t], next < 26 ? next : -1]);
			}
		}
	});

	test('masked: 15 % of residues are hidden, all of them behind one token, and nothing else is asked for', async () => {
		const { tokens } = await some();
		const windows = new ProteinWindows(set, { mode: 'masked', length: 200, seed: 4 });
		expect(windows.length).toBe(Math.floor(tokens.length / 200));
		const indices = Array.from({ length: windows.length }, (_, i) => i);
		const { ids, targets } = windows.arrays(indices);
		let [hidden, residues] = [0, 0];
		for (let i = 0; i < ids.length; i++) {
			const token = tokens[i]!;
			if (token < 26) residues++;
			if (targets[i]! < 0) expect(ids[i]).toBe(token);
			else {
				expect([ids[i], targets[i], token < 26]).toEqual([mask, token, true]);
				hidden++;
			}
		}
		expect(Math.abs(hidden - 0.15 * residues)).toBeLessThan(5 * Math.sqrt(residues * 0.15 * 0.85));
		expect(windows.arrays(indices)).toEqual({ ids, targets });
		const other = new ProteinWindows(set, { mode: 'masked', length: 200, seed: 5 }).arrays(indices);
		expect(other.targets).not.toEqual(targets);
	});

	test('something is asked for, however short a sequence is', () => {
		for (let example = 0; example < 50; example++) {
			const ids = new Int32Array(5);
			const targets = new Int32Array(5);
			question('masked', [begin, 3, 9, 4, end], ids, targets, { seed: 1, example, stream: 1 });
			expect(targets.filter((target) => target >= 0).length).toBeGreaterThan(0);
			expect([ids[0], ids[4], targets[0], targets[4]]).toEqual([begin, end, -1, -1]);
		}
	});

	test.each<ProteinMode>(['causal', 'masked'])(
		'%s, drawn: anywhere in the set, the same again, and each asks differently',
		async (mode) => {
			const { tokens } = await some();
			const windows = new ProteinWindows(set, { mode, length: 40, drawn: 3000, seed: 9 });
			expect(windows.length).toBe(3000);
			const text = Buffer.from(tokens);
			const places: number[] = [];
			for (let index = 0; index < 3000; index += 10) {
				const { ids, targets } = windows.arrays([index]);
				expect(windows.arrays([index])).toEqual({ ids, targets });
				const shown = mode === 'causal' ? ids : ids.map((id, t) => (targets[t]! < 0 ? id : targets[t]!));
				const place = text.indexOf(Buffer.from(Uint8Array.from(shown)));
				expect(place).toBeGreaterThanOrEqual(0);
				places.push(place / tokens.length);
			}
			places.sort((a, b) => a - b);
			// The largest distance to the uniform distribution (Kolmogorov & Smirnov): above 1.95/√n once in a thousand seeds.
			const distance = Math.max(...places.map((place, i) => Math.abs(place - i / places.length)));
			expect(distance).toBeLessThan(1.95 / Math.sqrt(places.length));
		},
	);

	test('of 8,192 residues and more', async () => {
		await some();
		const { ids } = new ProteinWindows(set, { mode: 'causal', length: 8192 }).arrays([0]);
		expect(ids).toHaveLength(8192);
		expect(ids.filter((id) => id === begin).length).toBeGreaterThan(10);
	});

	test('a batch holds what arrays holds', async () => {
		await some();
		const windows = new ProteinWindows(set, { mode: 'causal', length: 12 });
		const { ids, targets } = windows.arrays([3, 1]);
		expect(windows.batch([3, 1])).toEqual({ x: [ids.slice(0, 12), ids.slice(12)], y: [targets.slice(0, 12), targets.slice(12)] });
	});

	test('a set that is too small, and numbers that are none', async () => {
		await some();
		expect(() => new ProteinWindows(set, { mode: 'causal', length: 10 ** 7 })).toThrow(
			/the set has \d+ tokens, expected at least 10000001/,
		);
		expect(() => new ProteinWindows(set, { mode: 'causal', length: 3 })).toThrow('length is 3, expected an integer from 4');
		expect(() => new ProteinWindows(set, { mode: 'causal', length: 8, seed: -1 })).toThrow('seed is -1');
		expect(() => new ProteinWindows(set, { mode: 'causal', length: 8 }).arrays([10 ** 9])).toThrow('window 1000000000');
	});
});

describe('tally', () => {
	test('perplexity and accuracy beside those of the frequencies', () => {
		const counts = new Float64Array(26);
		counts.set([7, 1, 0, 3]);
		const tally = new ProteinTally(counts);
		const logits = new Float32Array(3 * size).fill(-2);
		logits[3] = 1; // place 0: D… is likeliest, E is asked for
		logits[2] = 2;
		logits[size] = 5; // place 1: A is likeliest and asked for
		logits[2 * size + 4] = 9; // place 2: nothing is asked for
		tally.add(logits, [3, 0, -1]);
		const score = tally.score();
		const losses = [Math.log(Math.exp(1) + Math.exp(2) + 27 * Math.exp(-2)) - 1, Math.log(Math.exp(5) + 28 * Math.exp(-2)) - 5];
		expect(score.nll).toBeCloseTo((losses[0]! + losses[1]!) / 2, 12);
		expect(score.perplexity).toBeCloseTo(Math.exp(score.nll), 12);
		expect([score.accuracy, score.residues]).toEqual([0.5, 2]);
		// (3 + 1) and (7 + 1) of 11 + 26.
		expect(score.unigram.perplexity).toBeCloseTo(Math.sqrt((37 / 4) * (37 / 8)), 12);
		expect(score.unigram.accuracy).toBe(0.5);
	});

	test('merged, as if one had seen all', () => {
		const random = new Random(2);
		const counts = Array.from({ length: 26 }, () => random.integer(100));
		const logits = Float32Array.from({ length: 40 * size }, () => random.normal());
		// Every third place is guessed right.
		const targets = Int32Array.from({ length: 40 }, () => random.integer(27) - 1);
		for (let n = 0; n < 40; n += 3) logits[n * size + Math.max(0, targets[n]!)] = 9;
		const [all, first, second] = [new ProteinTally(counts), new ProteinTally(counts), new ProteinTally(counts)];
		all.add(logits, targets);
		first.add(logits.subarray(0, 15 * size), targets.subarray(0, 15));
		second.add(logits.subarray(15 * size), targets.subarray(15));
		first.merge(second);
		expect(first.score().nll).toBeCloseTo(all.score().nll, 12);
		const row = (n: number) => [...logits.subarray(n * size, (n + 1) * size)];
		const places = [...targets].flatMap((target, n) => (target < 0 ? [] : [row(n).indexOf(Math.max(...row(n))) === target]));
		expect(places.filter(Boolean).length).toBeGreaterThan(0);
		expect(all.score().accuracy).toBe(places.filter(Boolean).length / places.length);
		expect({ ...first.score(), nll: 0, perplexity: 0, unigram: 0 }).toEqual({ ...all.score(), nll: 0, perplexity: 0, unigram: 0 });
	});

	test('what it cannot count', () => {
		const tally = new ProteinTally(new Float64Array(26));
		expect(() => tally.score()).toThrow('no residue was asked for');
		expect(() => tally.add(new Float32Array(size), [0, 1])).toThrow(ShapeError);
		expect(() => tally.add(new Float32Array(size).fill(NaN), [0])).toThrow('the loss of a residue is NaN');
		expect(() => new ProteinTally([1, 2])).toThrow('found 2 counts');
		expect(() => new ProteinTally(new Float64Array(26).fill(-1))).toThrow('count 0 is -1');
	});
});
