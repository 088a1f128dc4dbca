import { describe, expect, test } from 'vitest';
import { ArgumentError } from '../../lib/errors.js';
import { Stop } from '../../lib/generate/stop.js';
import { Random } from '../../lib/random.js';

/** Cut a text at these places and put it through; what comes out, piece by piece. */
function through(stop: Stop, pieces: readonly string[]): string[] {
	return [...pieces.map((piece) => stop.push(piece)), stop.end()];
}

/** The definition: of all first occurrences, the one that ends first; of those, the one that begins first. */
function naive(text: string, strings: readonly string[]): { before: string; stop: string | null } {
	const found = strings
		.map((stop) => ({ stop, at: text.indexOf(stop) }))
		.filter(({ at }) => at >= 0)
		.sort((a, b) => a.at + a.stop.length - (b.at + b.stop.length) || a.at - b.at)[0];
	return found ? { before: text.slice(0, found.at), stop: found.stop } : { before: text, stop: null };
}

describe('by hand', () => {
	test.each<[string, string[], string[], string[]]>([
		['no stop strings', [], ['a', 'b'], ['a', 'b', '']],
		['in one piece', ['END'], ['one END two', 'three'], ['one ', '', '']],
		['over three pieces', ['END'], ['one E', 'N', 'D two'], ['one ', '', '', '']],
		['a beginning that is none', ['END'], ['one E', 'N', 'ough'], ['one ', '', 'ENough', '']],
		['a beginning at the end of the text', ['END'], ['one EN'], ['one ', 'EN']],
		['a beginning within a beginning', ['aab'], ['a', 'a', 'a', 'b'], ['', '', 'a', '', '']],
		['one a prefix of another: the shorter is complete first', ['###', '#'], ['a', '###'], ['a', '', '']],
		['one within another: what is complete first', ['abcd', 'c'], ['xabcd'], ['xab', '']],
		['one behind another: the longer', ['c', 'abc'], ['xabc'], ['x', '']],
		['overlapping', ['abc', 'bcd'], ['ab', 'bcd'], ['', 'ab', '']],
		['a line', ['\n\n'], ['a\n', 'b\n', '\nc'], ['a', '\nb', '', '']],
		['characters of two units that share the first', ['😀'], ['a😁', 'b😀'], ['a😁', 'b', '']],
	])('%s', (_, strings, pieces, expected) => {
		expect(through(new Stop(strings), pieces)).toEqual(expected);
	});

	test('what was found, and included if asked for', () => {
		const stop = new Stop(['c', 'abc'], { include: true });
		expect(stop.found).toBe(null);
		expect(stop.push('xab')).toBe('x');
		expect(stop.push('cd')).toBe('abc');
		expect(stop.found).toBe('abc');
		expect(stop.push('more')).toBe('');
		expect(stop.end()).toBe('');
	});

	test.each([
		['', 'an empty string'],
		['\ud83d', 'half of a surrogate pair in "\\ud83d"'],
		[5 as unknown as string, 'found 5'],
	])('refused: %j', (text, message) => {
		expect(() => new Stop(['a', text])).toThrow(ArgumentError);
		expect(() => new Stop(['a', text])).toThrow(message);
	});
});

test.each([false, true])('random texts cut anywhere are as the whole text (include: %s)', (include) => {
	const random = new Random(include ? 1 : 2);
	const alphabet = ['a', 'b', 'é', '😀', '😁'];
	const word = (length: number, letters: number) => Array.from({ length }, () => alphabet[random.integer(letters)]!).join('');
	let found = 0;
	for (let round = 0; round < 20_000; round++) {
		const letters = 1 + random.integer(alphabet.length);
		const text = word(random.integer(20), letters);
		const strings = Array.from({ length: random.integer(4) }, () => word(1 + random.integer(5), letters));
		const pieces: string[] = [];
		const characters = [...text];
		while (characters.length > 0) pieces.push(characters.splice(0, random.integer(4)).join(''));
		const stop = new Stop(strings, { include });
		const expected = naive(text, strings);
		const what = JSON.stringify({ pieces, strings });

		let pushed = '';
		let out = '';
		for (const piece of pieces) {
			pushed += piece;
			out += stop.push(piece);
			if (stop.found !== null) break;
			// Nothing is held back longer than it must be: only from the first place where a stop string may have begun.
			let doubt = pushed.length;
			for (let i = pushed.length - 1; i >= 0; i--) if (strings.some((each) => each.startsWith(pushed.slice(i)))) doubt = i;
			expect(out, what).toBe(pushed.slice(0, doubt));
		}
		out += stop.end();
		expect(stop.found, what).toBe(expected.stop);
		expect(out, what).toBe(expected.before + (include ? (expected.stop ?? '') : ''));
		if (expected.stop !== null) found++;
	}
	expect(found).toBeGreaterThan(5000);
	expect(found).toBeLessThan(18_000);
});
