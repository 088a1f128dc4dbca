// node-llama-cpp as a peer: a process for each number of threads, with its threads pinned to cores of their own and without.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from '../machine.mjs';
import { Peer } from './peer.mjs';

const home = path.join(root, 'bench', 'peers', 'llama');

/** What to do where it is missing; it is no dependency of oplus, and nothing installs it by itself. */
export const advice = 'npm --prefix bench/peers/llama ci';

/** A library that pins threads (pin.c), compiled once a run; undefined where there is no compiler or no Linux. */
function pinning() {
	if (process.platform !== 'linux') return undefined;
	const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'oplus-pin-'));
	process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
	const library = path.join(folder, 'pin.so');
	const args = ['-O2', '-shared', '-fPIC', '-o', library, path.join(home, 'pin.c'), '-ldl'];
	return spawnSync('cc', args, { stdio: 'ignore' }).status === 0 ? library : undefined;
}

/** @returns a function from a number of threads to its processes by name, or undefined where node-llama-cpp is not installed */
export function findLlama() {
	if (!fs.existsSync(path.join(home, 'node_modules', 'node-llama-cpp', 'package.json'))) return undefined;
	const pin = pinning();
	const start = (more) => {
		// One thread of libuv's, so that passes always start from the same one.
		const environment = { ...process.env, UV_THREADPOOL_SIZE: '1', ...more };
		return new Peer('node-llama-cpp', process.execPath, [path.join(home, 'serve.mjs')], environment);
	};
	return (threads) => {
		const peers = { 'node-llama-cpp': start({}) };
		if (pin && threads > 1) peers['node-llama-cpp, pinned'] = start({ LD_PRELOAD: pin, OPLUS_PIN: `${threads}` });
		return peers;
	};
}
