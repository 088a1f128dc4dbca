// `npm test`: builds, runs every test file, and ends with one line that a machine can read: `N passed, N failed`.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const run = (args) => spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' }).status ?? 1;

const built = run([path.join(root, 'scripts', 'build.mjs')]);
if (built !== 0) process.exit(built);

const report = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'oplus-')), 'report.json');
const vitest = path.join(path.dirname(require.resolve('vitest/package.json')), 'vitest.mjs');
const status = run([vitest, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...process.argv.slice(2)]);
let passed = 0;
let failed = 1;
if (fs.existsSync(report)) {
	const { numPassedTests, numFailedTests, numFailedTestSuites, success } = JSON.parse(fs.readFileSync(report, 'utf8'));
	passed = numPassedTests;
	// A file that does not load has no tests to fail, and an error outside of tests fails the run alone: both must count.
	failed = numFailedTests || (success && status === 0 ? 0 : Math.max(1, numFailedTestSuites));
}
fs.rmSync(path.dirname(report), { recursive: true, force: true });
console.log(`${passed} passed, ${failed} failed`);
process.exit(status === 0 && failed > 0 ? 1 : status);
