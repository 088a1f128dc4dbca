import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from 'vitest';
import { made } from './models/llama/models.js';

/** Every example compiles against the package's own types and runs; so does the program in the README. */

const execute = promisify(execFile);
const root = path.dirname(__dirname);
const examples = fs.readdirSync(path.join(root, 'examples')).filter((name) => name.endsWith('.mts'));

beforeAll(async () => {
	const compiler = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc');
	await execute(process.execPath, [compiler, '-p', 'tsconfig.examples.json'], { cwd: root }).catch((error: { stdout: string }) => {
		throw new Error(error.stdout);
	});
}, 120_000);

/** What an example is told on its command line. */
const given: Readonly<Record<string, () => Promise<string>>> = { 'generate.mts': made };

test.each(examples)('%s', async (name) => {
	const program = path.join('build', 'examples', name.replace('.mts', '.mjs'));
	const told = given[name] ? [await given[name]()] : [];
	const { stdout, stderr } = await execute(process.execPath, [program, ...told], { cwd: root });
	expect(stderr).toBe('');
	expect(stdout.trim().split('\n').length).toBeGreaterThan(name === 'generate.mts' ? 0 : 1);
	expect(stdout).not.toMatch(/NaN|undefined/);
});

test.each(['readme.mts', 'generate.mts'])("%s is one of the README's programs, word for word", (name) => {
	const programs = [...fs.readFileSync(path.join(root, 'README.md'), 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map(
		([, program]) => program,
	);
	expect(programs).toContain(fs.readFileSync(path.join(root, 'examples', name), 'utf8'));
});
