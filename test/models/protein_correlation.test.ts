import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { parseBlosum, readBlosum } from '../../lib/models/protein_blosum.js';
import { correlateMatrices, ranks, spearman } from '../../lib/models/protein_correlation.js';
import { proteinTokens } from '../../lib/models/protein_tokens.js';
import { Random } from '../../lib/random.js';
import { file } from '../files.js';

/** A matrix file of the 20 amino acids. */
function matrixText(of: (i: number, j: number) => number | string): string {
	const acids = [...proteinTokens.letters.slice(0, 20)];
	return ['# made', `   ${acids.join('  ')}`, ...acids.map((a, i) => `${a} ${acids.map((_, j) => of(i, j)).join(' ')}`), ''].join('\n');
}

describe('readBlosum', () => {
	test('rows and columns in the order of the tokens, whatever the file has', () => {
		const acids = [...'ARNDCQEGHILKMFPSTWYVX*'];
		const value = (a: string, b: string) => (a.charCodeAt(0) * b.charCodeAt(0)) % 17;
		const text = `#\n ${acids.join(' ')}\r\n${acids.map((a) => `${a} ${acids.map((b) => value(a, b)).join('  ')}`).join('\r\n')}`;
		const matrix = parseBlosum(text, 'x');
		const letters = proteinTokens.letters;
		for (let i = 0; i < 20; i++) for (let j = 0; j < 20; j++) expect(matrix[i * 20 + j]).toBe(value(letters[i]!, letters[j]!));
	});

	test.each<[string, (text: string) => string, RegExp]>([
		['nothing', () => '', /there is no row A/],
		['a row missing', (text) => text.replace(/\nC .*/, ''), /there is no row C/],
		['a row twice', (text) => text.replace(/\nC (.*)/, '\nA $1'), /line 4: found a row "A"/],
		['a letter twice', (text) => text.replace('A  C', 'A  A'), /line 2, column 2: found "A"/],
		['a number too few', (text) => text.replace(/\nD (\S+) /, '\nD '), /line 5: row D has 19 numbers, expected 20/],
		['no number', (text) => text.replace(/\nA (\S+) /, '\nA x '), /line 3, column 2: found "x", expected a whole number/],
		['a NUL', (text) => text.replace(/\nA (\S+) /, '\nA \0 '), /line 3, column 2: found "\\u0000"/],
		['another number below the diagonal', (text) => text.replace(/\nC (\S+) /, '\nC 99 '), /A with C is not what C with A is/],
	])('%s: what was found, and where', (_, spoil, message) => {
		expect(() => parseBlosum(spoil(matrixText((i, j) => i + j)), 'x')).toThrow(FormatError);
		expect(() => parseBlosum(spoil(matrixText((i, j) => i + j)), 'x')).toThrow(message);
	});

	test('a file that is far too long is not read', async () => {
		await expect(readBlosum(await file('x', ' '.repeat(2 ** 20 + 1)))).rejects.toThrow('expected a matrix of at most 1048576');
	});

	const published = path.join(process.env.OPLUS_DATA ?? path.join(__dirname, '..', '..', '..', 'shared', 'data'), 'protein', 'BLOSUM62');
	if (!existsSync(published))
		console.warn(`test/models/protein_correlation: ${published} is not there; a matrix made for the test takes its place`);

	test('as published', async () => {
		const there = existsSync(published);
		const matrix = await readBlosum(
			there
				? published
				: await file(
						'x',
						matrixText((i, j) => (i === j ? 4 : -1)),
					),
		);
		const at = (a: string, b: string) => matrix[proteinTokens.letters.indexOf(a) * 20 + proteinTokens.letters.indexOf(b)];
		expect([at('A', 'A'), at('A', 'R')]).toEqual([4, -1]);
		if (there) expect([at('W', 'W'), at('D', 'E'), at('F', 'Y'), at('Y', 'F'), at('G', 'I')]).toEqual([11, 2, 3, 3, -4]);
	});
});

describe('rank correlation', () => {
	test('ranks: equal numbers share the mean of their places', () => {
		expect([...ranks([10, 5, 10, 1, 10, 5])]).toEqual([5, 2.5, 5, 1, 5, 2.5]);
	});

	test('spearman: by hand, without ties and with', () => {
		// 1 − 6 Σd²/(n(n² − 1)), d = 1, 1, 0, 1, 1
		expect(spearman([1, 2, 3, 4, 5], [20, 10, 30, 500, 400])).toBeCloseTo(1 - (6 * 4) / (5 * 24), 12);
		expect(spearman([1, 2, 3], [7, 6, 5])).toBeCloseTo(-1, 12);
		// Ranks 1.5 1.5 3 4 and 1 2 3.5 3.5: products 1.5 + 0.5 + 0.5 + 1.5, squares 4.5 and 4.5
		expect(spearman([1, 1, 2, 3], [1, 2, 3, 3])).toBeCloseTo(4 / 4.5, 12);
		expect(() => spearman([1, 2], [1])).toThrow('lists of 2 and 1');
	});

	/** Numbers the same both ways. */
	function symmetric(n: number, of: (i: number, j: number) => number): Float64Array {
		return Float64Array.from({ length: n * n }, (_, at) => of(Math.min(at % n, Math.floor(at / n)), Math.max(at % n, Math.floor(at / n))));
	}

	test('matrices that rise together: p is the least that the permutations allow', () => {
		const a = symmetric(12, (i, j) => Math.cos(3 * i + 5 * j + i * j));
		const found = correlateMatrices(
			a,
			a.map((x) => Math.exp(2 * x)),
			{ permutations: 499, seed: 3 },
		);
		expect(found).toEqual({ correlation: expect.closeTo(1, 12), p: 1 / 500, permutations: 499, pairs: 66 });
		expect(
			correlateMatrices(
				a,
				a.map((x) => -x),
				{ permutations: 99 },
			),
		).toMatchObject({ correlation: expect.closeTo(-1, 12), p: 1 });
	});

	test('the diagonal does not count, and neither does what labels are called', () => {
		const a = symmetric(8, (i, j) => Math.sin(i + 7 * j));
		const b = symmetric(8, (i, j) => Math.sin(i + 7 * j) + (i === j ? 100 : Math.cos(j)));
		const other = b.slice();
		for (let i = 0; i < 8; i++) other[9 * i] = -5;
		expect(correlateMatrices(a, b)).toEqual(correlateMatrices(a, other));
		const above = (m: Float64Array) => Array.from({ length: 8 }, (_, i) => [...m.slice(i * 8 + i + 1, i * 8 + 8)]).flat();
		expect(correlateMatrices(a, b).correlation).toBeCloseTo(spearman(above(a), above(b)), 12);
	});

	test('three labels: the exact share of the six labellings', () => {
		const a = symmetric(3, (i, j) => [0, 1, 2, 0, 0, 3][3 * i + j]!); // pairs 1, 2, 3
		const { p, correlation } = correlateMatrices(a, a, { permutations: 6000, seed: 1 });
		expect(correlation).toBeCloseTo(1, 12);
		// One of six labellings gives 1, 2, 3: five deviations of the binomial distribution around it.
		expect(Math.abs(p - 1 / 6)).toBeLessThan(5 * Math.sqrt(((1 / 6) * (5 / 6)) / 6000));
	});

	test('matrices that have nothing to do with each other: p is below a share as often as the share says', () => {
		const random = new Random(8);
		const draw = () => {
			const numbers = Array.from({ length: 100 }, () => random.normal());
			return symmetric(10, (i, j) => numbers[10 * i + j]!);
		};
		const rounds = 200;
		let below = 0;
		for (let round = 0; round < rounds; round++) if (correlateMatrices(draw(), draw(), { permutations: 99, seed: round }).p <= 0.2) below++;
		expect(Math.abs(below / rounds - 0.2)).toBeLessThan(4 * Math.sqrt((0.2 * 0.8) / rounds));
	});

	test('what is no pair of matrices', () => {
		expect(() => correlateMatrices([1, 2, 3], [1, 2, 3])).toThrow('found 3 and 3 numbers');
		expect(() => correlateMatrices(new Float64Array(9).fill(NaN), new Float64Array(9))).toThrow('found NaN');
		expect(() => correlateMatrices([0, 1, 1, 2, 0, 1, 1, 1, 0], new Float64Array(9))).toThrow('found 2 and 1');
	});
});
