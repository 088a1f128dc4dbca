import { spawnSync } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import zlib from 'node:zlib';
import { beforeAll, describe, expect, test } from 'vitest';
import { partOf, readProteins } from '../../lib/models/protein_data.js';
import { proteinTokens } from '../../lib/models/protein_tokens.js';
import { Random } from '../../lib/random.js';
import { file, temporary } from '../files.js';
import { oplus } from './run.js';
import { json, refusal } from './said.js';

interface Figures {
	readonly perplexity: number;
	readonly nll: number;
	readonly accuracy: number;
	readonly residues: number;
	readonly unigram: { readonly perplexity: number; readonly accuracy: number };
}

interface Line {
	readonly id: string;
	readonly perplexity: number;
	readonly accuracy: number;
	readonly residues: number;
	readonly stateBytes: number;
}

/** A model that trains in seconds. */
const small = [
	'--dim',
	'16',
	'--heads',
	'2',
	'--layers',
	'2',
	'--features',
	'16',
	'--length',
	'80',
	'--batch',
	'4',
	'--steps',
	'60',
	'--rate',
	'5e-3',
];

/** Proteins in which each residue says which one follows, nine times of ten. */
function proteins(records: number): { id: string; sequence: string }[] {
	const random = new Random(7);
	return Array.from({ length: records }, (_, i) => {
		let at = random.integer(20);
		const residues = Array.from({ length: 62 + random.integer(16) }, () => {
			at = random.uniform() < 0.1 ? random.integer(20) : (at + 7) % 20;
			return proteinTokens.letters[at]!;
		});
		return { id: `sp|P${i}|MADE${i}_TEST`, sequence: residues.join('') };
	});
}

const text = (list: readonly { id: string; sequence: string }[]) => list.map(({ id, sequence }) => `>${id} made\n${sequence}\n`).join('');

const list = proteins(260);
let fasta: string;
let folder: string;
let trained: Record<'causal' | 'masked', Figures & { readonly parameters: number; readonly steps: number }>;
beforeAll(async () => {
	fasta = await file('made.fasta.gz', zlib.gzipSync(text(list)));
	folder = await temporary();
	const train = async (mode: string, more: string[]) =>
		json<Figures & { parameters: number; steps: number }>(
			await oplus(['protein', '--fasta', fasta, '--mode', mode, ...small, ...more, '--out', path.join(folder, mode), '--json']),
		);
	trained = { causal: await train('causal', []), masked: await train('masked', ['--kind', 'relu']) };
}, 120_000);

const on = (mode: string, ...args: string[]) => oplus(['protein', '--fasta', fasta, '--model', path.join(folder, mode), ...args]);

describe('training', () => {
	test('the test part, beside the frequencies of the training part', async () => {
		const { train, test: held } = await readProteins(fasta);
		const all = train.counts.reduce((sum, count) => sum + count + 1, 0);
		for (const mode of ['causal', 'masked'] as const) {
			const found = trained[mode];
			expect(found).toMatchObject({ mode, steps: 60, length: 80, model: path.join(folder, mode) });
			expect(found.perplexity).toBeCloseTo(Math.exp(found.nll), 9);
			expect(found.accuracy).toBeGreaterThan(0);
			const windows = Math.floor(held.tokens.length / 80);
			expect(found.residues).toBeLessThanOrEqual(windows * 80);
			if (mode === 'masked') continue;
			// All residues of the windows are asked for, so what frequencies give can be worked out here.
			let nll = 0;
			let residues = 0;
			const places = Math.floor((held.tokens.length - 1) / 80) * 80;
			for (const id of held.tokens.subarray(1, 1 + places)) {
				if (id >= 26) continue;
				nll += Math.log(all / (train.counts[id]! + 1));
				residues++;
			}
			expect(found.residues).toBe(residues);
			expect(found.unigram.perplexity).toBeCloseTo(Math.exp(nll / residues), 9);
			expect(found.perplexity).toBeLessThan(found.unigram.perplexity);
		}
	});

	test('the same seed, the same figures; another seed, others', async () => {
		const run = async (seed: string) =>
			json<Figures & { seconds: number }>(
				await oplus(['protein', '--fasta', fasta, ...small, '--steps', '5', '--seed', seed, '--out', path.join(folder, 'again'), '--json']),
			);
		const [once, twice, other] = [await run('3'), await run('3'), await run('4')];
		expect({ ...twice, seconds: 0 }).toEqual({ ...once, seconds: 0 });
		expect(other.nll).not.toBe(once.nll);
	});

	test('for people: figures on stdout, the rest on stderr, no bar in a pipe', async () => {
		const { stdout, stderr, code } = await oplus([
			...['protein', '--fasta', fasta, ...small, '--steps', '20', '--mixer', 'attention', '--out', path.join(folder, 'people')],
		]);
		expect(code).toBe(0);
		expect(stdout).toMatch(/causal Transformer +\d+\.\d{3} +\d+\.\d\d %\nfrequencies alone +\d/);
		expect(stderr).toMatch(/validation perplexity \d/);
		expect(stderr).not.toContain('\r');
	});

	test('Ctrl-C: one line, exit code 1, and no model', async () => {
		const out = path.join(folder, 'stopped');
		let sent = false;
		const { code, stderr, stdout } = await oplus(
			['protein', '--fasta', fasta, ...small, '--steps', '100000', '--out', out],
			(said, child) => {
				if (sent || !said.includes('parameters')) return;
				sent = true;
				child.kill('SIGINT');
			},
		);
		expect([code, stdout]).toEqual([1, '']);
		expect(stderr.trimEnd().split('\n').at(-1)).toBe('oplus: interrupted');
		await expect(fs.stat(out)).rejects.toThrow('ENOENT');
	});
});

describe('--score and --stream', () => {
	test.each(['causal', 'masked'] as const)('%s: each record and all of them', async (mode) => {
		const found = json<Figures & { records: Line[]; context: number }>(await on(mode, '--score', '--json'));
		expect(found.records.map(({ id }) => id)).toEqual(list.map(({ id }) => id));
		const n = found.records.reduce((sum, { residues }) => sum + residues, 0);
		expect([found.residues, found.context]).toEqual([n, 80]);
		const nll = found.records.reduce((sum, { perplexity, residues }) => sum + residues * Math.log(perplexity), 0) / n;
		expect(found.nll).toBeCloseTo(nll, 9);
		if (mode === 'causal') expect(found.records.map(({ residues }) => residues)).toEqual(list.map(({ sequence }) => sequence.length));
	});

	test('residue by residue as in whole records, with a state of one size', async () => {
		const args = ['--part', 'test', '--records', '5', '--json'];
		const whole = json<Figures & { records: Line[] }>(await on('causal', '--score', '--context', '1000', ...args));
		const found = json<Figures & { records: Line[]; stateBytes: number; secondsPerResidue: number }>(
			await on('causal', '--stream', ...args),
		);
		const wanted = list.filter(({ id }) => partOf(id) === 'test').slice(0, 5);
		expect(found.records.map(({ id }) => id)).toEqual(wanted.map(({ id }) => id));
		expect(Math.abs(found.nll - whole.nll)).toBeLessThan(1e-5);
		expect([found.residues, found.unigram]).toEqual([whole.residues, whole.unigram]);
		expect(new Set(found.records.map(({ stateBytes }) => stateBytes))).toEqual(new Set([found.stateBytes]));
		expect(found.stateBytes).toBe(2 * 4 * 2 * (1 + 16 * 9));
		expect(found.secondsPerResidue).toBeGreaterThan(0);
		const { stdout } = await on('causal', '--stream', '--part', 'test', '--records', '5');
		expect(stdout).toContain(`State: ${found.stateBytes} bytes`);
		expect(stdout).toContain(wanted[4]!.id);
	});
});

describe('--similarity', () => {
	const acids = [...proteinTokens.letters.slice(0, 20)];
	const matrix = () =>
		file(
			'matrix',
			[` ${acids.join(' ')}`, ...acids.map((a, i) => `${a} ${acids.map((_, j) => Math.max(i, j) - 2 * Math.abs(i - j)).join(' ')}`)].join(
				'\n',
			),
		);

	test('a matrix, its correlation, heads, and plots', async () => {
		const out = path.join(folder, 'similarity');
		const args = ['--similarity', '--blosum', await matrix(), '--records', '40', '--permutations', '199', '--out', out];
		const found = json<{
			similarity: number[][];
			correlation: number;
			p: number;
			pairs: number;
			sequences: number;
			heads: unknown[];
			files: string[];
			protein: string;
		}>(await on('masked', ...args, '--json'));
		expect([found.sequences, found.pairs, found.heads.length]).toEqual([40, 190, 4]);
		expect(found.similarity.map((row) => row.length)).toEqual(Array(20).fill(20));
		for (let i = 0; i < 20; i++) for (let j = 0; j < 20; j++) expect(found.similarity[i]![j]).toBe(found.similarity[j]![i]);
		expect(Math.abs(found.correlation)).toBeLessThanOrEqual(1);
		expect(found.p * 200).toBeCloseTo(Math.round(found.p * 200), 9);
		expect(found.protein).toBe(list[0]!.id);
		expect(found.files.map((name) => path.basename(name)).sort()).toEqual(['attention.svg', 'similarity.json', 'similarity.svg']);
		const svg = await fs.readFile(path.join(out, 'similarity.svg'), 'utf8');
		expect(svg).toMatch(/^<svg[\s\S]*<\/svg>\s*$/);
		expect(svg.match(/fill="rgb\(/g)!.length).toBeGreaterThanOrEqual(800);
		expect(svg).toContain('BLOSUM62');
		const maps = await fs.readFile(path.join(out, 'attention.svg'), 'utf8');
		expect(maps).toContain('most local');
		expect(maps).toContain(list[0]!.id);
		const saved = JSON.parse(await fs.readFile(path.join(out, 'similarity.json'), 'utf8'));
		expect(saved.similarity).toEqual(found.similarity);
	});

	test('without a matrix to compare with, and with a protein of choice', async () => {
		const out = path.join(folder, 'alone');
		const found = json<{ correlation?: number; protein: string }>(
			await on('causal', '--similarity', '--records', '30', '--protein', 'P3|', '--out', out, '--json'),
		);
		expect(found.protein).toBe('sp|P3|MADE3_TEST');
		expect(found).not.toHaveProperty('correlation');
	});
});

describe('one line that says what is wrong', () => {
	test.each<[string, string[], number, RegExp]>([
		['no file', ['--fasta', 'nowhere.fa'], 1, /nowhere\.fa: this cannot be opened \(ENOENT\)/],
		['--score without a model', ['--score'], 2, /without --model/],
		['a model alone', ['--model', 'x'], 2, /expected one of --score, --stream and --similarity/],
		['a folder that holds no model', ['--model', 'nowhere', '--score'], 1, /protein\.json: this cannot be opened/],
		['windows that are too long', ['--length', '100000'], 2, /--length 100000: the train part of .* has \d+ tokens/],
		['features that are odd', ['--kind', 'hyperbolic', '--features', '7'], 2, /features is 7, expected a positive even integer/],
		['a name that is none', ['--mode', 'both'], 2, /expected one of causal, masked/],
	])('%s', async (_, args, code, message) => {
		expect(refusal(await oplus(['protein', '--fasta', fasta, ...args]), code)).toMatch(message);
	});

	test('a bad file: record, line and column', async () => {
		const place = await file('bad.fasta', `${text(list.slice(0, 3))}>P9\nMK1\n`);
		expect(refusal(await oplus(['protein', '--fasta', place]), 1)).toBe(
			`oplus: ${place}, line 8, column 3: record 4 (P9): found \`1\`, expected a residue`,
		);
	});

	test('a stream of a model that knows what follows; a bad matrix; a protein that is not there', async () => {
		expect(refusal(await on('masked', '--stream'), 2)).toContain('the model is masked, expected a causal one');
		const bad = await file('matrix', ' A C\nA 1 x\n');
		expect(refusal(await on('masked', '--similarity', '--blosum', bad), 1)).toContain('line 2, column 3: found "x"');
		expect(refusal(await on('masked', '--similarity', '--records', '5', '--protein', 'nobody'), 1)).toContain(
			'found no record nobody among the 5',
		);
	});
});

test('the benchmark: figures for every model and length, and the second time nothing is done again', { timeout: 120_000 }, async () => {
	const out = path.join(folder, 'bench');
	const bench = () => {
		const args = [path.join(__dirname, '..', '..', 'bench', 'protein.mjs'), '--quick', '--fasta', fasta, '--out', out];
		const { status, stderr, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
		expect([status, stderr]).toEqual([0, '']);
		return stdout;
	};
	expect(bench()).toContain('masked-transformer-seed0: test perplexity');
	const read = async () => JSON.parse(await fs.readFile(path.join(out, 'protein.json'), 'utf8'));
	const found = await read();
	expect(found.models).toHaveLength(6);
	expect(new Set(found.models.map(({ parameters }: { parameters: number }) => parameters)).size).toBe(1);
	for (const { perplexity, unigram } of found.models)
		for (const value of [perplexity, unigram.perplexity]) expect(value).toBeGreaterThan(1);
	expect(found.memory).toHaveLength(4);
	for (const { peakBytes, restBytes, seconds } of found.memory)
		expect([peakBytes > restBytes, restBytes > 0, seconds > 0]).toEqual([true, true, true]);
	const table = await fs.readFile(path.join(out, 'protein.md'), 'utf8');
	for (const title of ['Performer (ReLU)', 'Performer (softmax)', 'Transformer', 'frequencies of residues'])
		expect(table.split(`| ${title} |`)).toHaveLength(3);
	for (const plot of ['protein-memory.svg', 'protein-time.svg']) expect(await fs.readFile(path.join(out, plot), 'utf8')).toMatch(/^<svg/);
	expect(bench()).not.toContain('test perplexity');
	expect((await read()).models).toEqual(found.models);
});
