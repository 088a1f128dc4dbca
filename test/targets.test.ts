/** The operations' tests once more on every instruction set that this processor has, besides the one chosen by itself. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { root } from './contract.js';

const run = promisify(execFile);
const node = (args: string[], target: string) =>
	run(process.execPath, args, {
		cwd: root,
		env: { ...process.env, OPLUS_TARGET: target, OPLUS_CUDA_LIBRARY: '', NO_COLOR: '1' },
		maxBuffer: 1 << 26,
	});

const own = binding.cpu().target;
const others = ['base', 'avx2', 'avx512'].slice(0, Math.max(0, ['base', 'avx2', 'avx512'].indexOf(own)));

test('OPLUS_TARGET chooses, and what the processor lacks is not chosen', async () => {
	for (const target of ['base', ...others, own]) {
		const { stdout } = await node(['-p', "require('node-gyp-build')(process.cwd()).cpu().target"], target);
		expect(stdout.trim()).toBe(target);
	}
	expect((await node(['-p', "require('node-gyp-build')(process.cwd()).cpu().target"], 'avx512')).stdout.trim()).toBe(own);
});

describe.each(others)('%s', (target) => {
	test.each([
		['results and gradients hold', 500, ['test/ops.test.ts', '-t', 'no further from|: gradients$']],
		[
			'operations of decoders hold',
			100,
			['stored', 'convert_stored', 'first_fault', 'pretrained_ops', 'cache_steps'].map((name) => `test/${name}.test.ts`),
		],
	])('%s', { timeout: 600_000 }, async (_, least, what) => {
		const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs');
		const args = [vitest, 'run', ...what, '--reporter=json'];
		const { stdout } = await node(args, target).catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? '' }));
		const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
			numPassedTests: number;
			numFailedTests: number;
			testResults: { assertionResults: { status: string; fullName: string; failureMessages: string[] }[] }[];
		};
		const failed = report.testResults.flatMap((file) => file.assertionResults.filter(({ status }) => status === 'failed'));
		expect(failed.map(({ fullName, failureMessages }) => `${fullName}: ${failureMessages[0]?.split('\n')[0]}`)).toEqual([]);
		expect(report.numFailedTests).toBe(0);
		expect(report.numPassedTests).toBeGreaterThan(least);
	});
});
