// What the figures were taken on, and with what.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { seconds } from './timing.mjs';

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** The library as a user has it, and the raw operations behind it. */
export const oplus = await import(new URL('../dist/index.mjs', import.meta.url).href);
export const require = createRequire(import.meta.url);
export const { binding } = require('../dist/binding.js');

/** A native buffer of n random numbers in [−scale, scale): not zeros, whose arithmetic and pages some machines take short cuts for. */
export function buffer(n, scale = 1) {
	return binding.create('cpu', 4 * n, numbers(n, scale));
}

let state = 1;

/** @param {number} n @param {number} scale */
export function numbers(n, scale = 1) {
	const data = new Float32Array(n);
	for (let i = 0; i < n; i++) {
		state = (Math.imul(state, 1664525) + 1013904223) | 0;
		data[i] = (state / 2 ** 31) * scale;
	}
	return data;
}

/** A contestant for `inTurns`: seconds from the call of `work` until everything that it queued has run. */
export function timed(work) {
	return () =>
		seconds(() => {
			work();
			return binding.synchronize('cpu');
		});
}

/** Frees the buffers when `run` is done. */
export async function withBuffers(buffers, run) {
	try {
		return await run(buffers);
	} finally {
		await binding.synchronize('cpu');
		for (const each of Object.values(buffers)) binding.dispose(each);
		binding.trim('cpu');
	}
}

function git(...args) {
	try {
		return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
	} catch {
		return '';
	}
}

/** Device, date, commit and command: without them a figure says nothing later on. */
export function facts(command) {
	const [cpu] = oplus.devices();
	const model = os.cpus()[0]?.model.trim() ?? cpu.model;
	return {
		cpu: model,
		cores: os.availableParallelism(),
		memoryBytes: os.totalmem(),
		instructions: cpu.architecture,
		system: `${os.platform()} ${os.release()} ${os.arch()}`,
		node: process.version,
		date: new Date().toISOString(),
		commit: git('rev-parse', 'HEAD') || 'unknown',
		changed: git('status', '--porcelain', '--', 'lib', 'native', 'binding.d.ts') !== '',
		load: os.loadavg(),
		command,
	};
}
