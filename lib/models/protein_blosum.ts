import { FormatError } from '../errors.js';
import { readBytes } from '../io/bytes.js';
import { openFile } from '../io/fields.js';
import { proteinTokens } from './protein_tokens.js';

/** Numbers for pairs of the 20 amino acids, `[20, 20]` in the order of `proteinTokens.letters`. */
export type AminoAcidMatrix = Float64Array;

/** The largest file that is taken for a matrix: NCBI's have 2 KB. */
const mostBytes = 2 ** 20;

/**
 * A substitution matrix as NCBI writes them: lines that begin with `#`, a line of letters, and for each letter a line of whole numbers.
 * @returns scores of the 20 amino acids; what else the file has (B, J, Z, X, *) is left out
 * @throws FormatError with line and column (as words): a row that is missing or twice, a cell that is no number, a matrix that is not
 * the same both ways
 */
export async function readBlosum(path: string): Promise<AminoAcidMatrix> {
	await using file = await openFile(path);
	const { size } = await file.stat();
	if (size > mostBytes) throw new FormatError(path, `the file has ${size} bytes, expected a matrix of at most ${mostBytes}`);
	return parseBlosum((await readBytes(path, file, 0, size)).toString('latin1'), path);
}

/** As `readBlosum`, from the text. @param path for messages */
export function parseBlosum(text: string, path: string): AminoAcidMatrix {
	const rows = new Map<string, Map<string, number>>();
	let letters: readonly string[] | undefined;
	for (const [i, whole] of text.split('\n').entries()) {
		const words = whole.trim().split(/\s+/);
		const line = i + 1;
		if (words[0] === '' || words[0]!.startsWith('#')) continue;
		if (!letters) {
			letters = words;
			const wrong = words.findIndex((word, n) => word.length !== 1 || words.indexOf(word) !== n);
			if (wrong >= 0) {
				throw new FormatError(path, `found ${JSON.stringify(words[wrong]!.slice(0, 20))}, expected a letter that is not there yet`, {
					line,
					column: wrong + 1,
				});
			}
			continue;
		}
		const [letter, ...cells] = words as [string, ...string[]];
		if (!letters.includes(letter) || rows.has(letter)) {
			throw new FormatError(path, `found a row ${JSON.stringify(letter.slice(0, 20))}, expected one for each letter of the first line`, {
				line,
			});
		}
		if (cells.length !== letters.length)
			throw new FormatError(path, `row ${letter} has ${cells.length} numbers, expected ${letters.length}`, { line });
		const wrong = cells.findIndex((cell) => !/^[+-]?\d{1,6}$/.test(cell));
		if (wrong >= 0) {
			throw new FormatError(path, `found ${JSON.stringify(cells[wrong]!.slice(0, 20))}, expected a whole number`, {
				line,
				column: wrong + 2,
			});
		}
		rows.set(letter, new Map(cells.map((cell, n) => [letters![n]!, Number(cell)])));
	}
	const acids = [...proteinTokens.letters.slice(0, proteinTokens.standard)];
	const missing = acids.find((letter) => !rows.has(letter));
	if (missing) throw new FormatError(path, `there is no row ${missing}, expected one for each of ${acids.join(' ')}`);
	const matrix = Float64Array.from(acids.flatMap((a) => acids.map((b) => rows.get(a)!.get(b)!)));
	for (const [i, a] of acids.entries()) {
		for (const [j, b] of acids.entries()) {
			if (matrix[i * acids.length + j] !== matrix[j * acids.length + i])
				throw new FormatError(path, `${a} with ${b} is not what ${b} with ${a} is, expected the same both ways`);
		}
	}
	return matrix;
}
