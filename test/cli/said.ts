import { expect } from 'vitest';
import type { Finished } from './run.js';

/** The one object on stdout. */
export function json<T>({ stdout, stderr, code }: Finished): T {
	expect(code, stderr).toBe(0);
	expect(stdout.trimEnd().split('\n')).toHaveLength(1);
	return JSON.parse(stdout) as T;
}

/** What a command over a decoder says went wrong: one line, and nothing on stdout. */
export function refusal({ stdout, stderr, code }: Finished, expected: number): string {
	expect(code, stderr).toBe(expected);
	expect(stdout).toBe('');
	const lines = stderr
		.trimEnd()
		.split('\n')
		.filter((line) => !line.includes('loaded in') && !line.startsWith('note: ') && !line.startsWith('(--help'));
	expect(lines, stderr).toHaveLength(1);
	return lines[0]!;
}
