import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from 'vitest';

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

test.each(examples)('%s', async (name) => {
	const { stdout, stderr } = await execute(process.execPath, [path.join('build', 'examples', name.replace('.mts', '.mjs'))], { cwd: root });
	expect(stderr).toBe('');
	expect(stdout.trim().split('\n').length).toBeGreaterThan(1);
	expect(stdout).not.toMatch(/NaN|undefined/);
});

test("the README's program is examples/readme.mts, word for word", () => {
	const program = /```ts\n([\s\S]*?)```/.exec(fs.readFileSync(path.join(root, 'README.md'), 'utf8'))?.[1];
	expect(program).toBe(fs.readFileSync(path.join(root, 'examples', 'readme.mts'), 'utf8'));
});
