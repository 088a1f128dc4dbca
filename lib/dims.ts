import { ArgumentError, ShapeError } from './errors.js';

/** Anything with a shape. Of tensors, the type of the elements is checked as well. */
export interface Shaped {
	readonly shape: readonly number[];
	readonly dtype?: string;
}

/** The letters of a shape: `Letters<'B T H D'>` is `'B' | 'T' | 'H' | 'D'`. */
export type Letters<Text extends string> = Text extends `${infer Head} ${infer Tail}`
	? Letters<Head> | Letters<Tail>
	: Text extends `${number}` | '…'
		? never
		: Text;

/**
 * One entry: a tensor, its shape in letters, and the type of its elements (f32 unless it says otherwise). An entry whose
 * tensor is null or undefined is left out (its letters stay free).
 */
export type Spec = Readonly<Record<string, readonly [tensor: Shaped | null | undefined, letters: string, dtype?: string]>>;

/**
 * Check shapes and name their dimensions: the text in quotes is both the documentation and the test. A letter that stands
 * twice must have one size, a number must be that size, and `…` in front is any number of dimensions of any size.
 *
 * @example
 * const { B, T, H, D } = dims('scan', { s: [s, 'B T H'], v: [v, 'B T H D'], lengths: [lengths, 'B', 'i32'] });
 * @throws ShapeError `scan: \`v\` has shape [2, 3], expected [B=2 T=3 H=1 D]`
 * @throws ArgumentError `scan: \`lengths\` holds f32, expected i32`
 */
export function dims<const S extends Spec>(where: string, spec: S): Record<Letters<S[keyof S][1]>, number> {
	const sizes: Record<string, number> = {};
	for (const name in spec) {
		const entry = spec[name]!; // by index: taking it apart with [a, b, c] asks for an iterator, and this runs for every operation
		const tensor = entry[0];
		if (!tensor) continue;
		const { shape, dtype } = tensor;
		const expected = entry[2] ?? 'f32';
		if (dtype !== undefined && dtype !== expected) throw new ArgumentError(`${where}: \`${name}\` holds ${dtype}, expected ${expected}`);
		const letters = lettersOf(entry[1]);
		const first = letters[0] === '…' ? 1 : 0;
		const offset = shape.length - letters.length;
		let fits = first ? offset >= -1 : offset === 0;
		for (let i = first; fits && i < letters.length; i++) {
			const letter = letters[i]!;
			const found = shape[i + offset]!;
			const size = (sizes[letter] ??= isDigit(letter) ? Number(letter) : found);
			fits = size === found;
		}
		if (!fits) {
			const wanted = letters.map((letter) => (sizes[letter] === undefined || isDigit(letter) ? letter : `${letter}=${sizes[letter]}`));
			throw new ShapeError(`${where}: \`${name}\` has shape [${shape.join(', ')}], expected [${wanted.join(' ')}]`);
		}
	}
	return sizes as Record<Letters<S[keyof S][1]>, number>;
}

const split = new Map<string, readonly string[]>();

/** Shapes are written in the source, so there are few: split each once. */
function lettersOf(text: string): readonly string[] {
	let letters = split.get(text);
	if (!letters) split.set(text, (letters = text.split(' ')));
	return letters;
}

function isDigit(letter: string): boolean {
	const code = letter.charCodeAt(0);
	return code >= 48 && code <= 57;
}

/** The number of rows that a shape's last dimension lies in: the product of the others. */
export function rowsOf(shape: readonly number[]): number {
	let n = 1;
	for (let i = 0; i < shape.length - 1; i++) n *= shape[i]!;
	return n;
}

/** The number of elements of a shape. */
export function count(shape: readonly number[]): number {
	let n = 1;
	for (const size of shape) n *= size;
	return n;
}
