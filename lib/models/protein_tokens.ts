import { ArgumentError } from '../errors.js';
import { aminoAcids } from '../io/fasta.js';

/**
 * The vocabulary of proteins. Ids are fixed: 0 to 19 the amino acids in the order of their letters (A C D E F G H I K L M N P Q R S T V
 * W Y), then 20 X, 21 B, 22 Z, 23 U, 24 O, 25 J (see `aminoAcids`), and after them 26, which stands before every sequence, 27, which
 * stands behind it, and 28, which stands for a residue that is to be guessed.
 */
export const proteinTokens = {
	letters: aminoAcids,
	/** Letters: every id below is a residue. */
	residues: aminoAcids.length,
	/** Of `letters`, those that name one amino acid each. */
	standard: 20,
	begin: 26,
	end: 27,
	mask: 28,
	/** Ids in all. */
	size: 29,
} as const;

/** By character code; −1 where it is no residue. */
const ids = new Int8Array(128).fill(-1);
for (let id = 0; id < aminoAcids.length; id++) {
	ids[aminoAcids.charCodeAt(id)] = id;
	ids[aminoAcids.toLowerCase().charCodeAt(id)] = id;
}

/**
 * Ids of residues, without those that stand before and behind.
 * @param sequence letters, or their codes in ASCII
 * @throws ArgumentError a character that is no residue
 */
export function encodeProtein(sequence: string | Uint8Array): Int32Array {
	const encoded = new Int32Array(sequence.length);
	for (let i = 0; i < sequence.length; i++) {
		const code = typeof sequence === 'string' ? sequence.charCodeAt(i) : sequence[i]!;
		const id = ids[code] ?? -1;
		if (id < 0) {
			const found = JSON.stringify(String.fromCharCode(code));
			throw new ArgumentError(`encodeProtein: found ${found} at place ${i}, expected one of ${aminoAcids}`);
		}
		encoded[i] = id;
	}
	return encoded;
}
