// PyTorch as a peer: a process of its own for each number of threads, asked for one run at a time.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { oplus, root } from '../machine.mjs';
import { Peer } from './peer.mjs';

/** The first Python that has PyTorch; `OPLUS_PYTHON` names another. */
function findPython() {
	const candidates = [process.env.OPLUS_PYTHON, 'python3', '/usr/bin/python3'].filter(Boolean);
	return candidates.find((python) => spawnSync(python, ['-c', 'import torch'], { stdio: 'ignore' }).status === 0);
}

/** PyTorch at its best here: the instruction set that we use too, OpenBLAS with OpenMP's threads, memory kept by the process. */
function environment(threads) {
	const { architecture } = oplus.devices()[0];
	const openblas = '/usr/lib/x86_64-linux-gnu/openblas-openmp';
	return {
		...process.env,
		OMP_NUM_THREADS: `${threads}`,
		MALLOC_MMAP_MAX_: '0',
		MALLOC_TRIM_THRESHOLD_: `${2 ** 40}`, // or what MALLOC_MMAP_MAX_ took from the heap goes back to the system after every run
		...(architecture !== 'base' && { ATEN_CPU_CAPABILITY: architecture }),
		...(fs.existsSync(openblas) && { LD_LIBRARY_PATH: [openblas, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':') }),
	};
}

export class Torch extends Peer {
	constructor(python, threads) {
		super('PyTorch', python, [path.join(root, 'bench', 'peers', 'torch_peers.py')], environment(threads));
	}
}

/** @returns a function from a number of threads to its `Torch`, or undefined where there is no PyTorch */
export function findTorch() {
	const python = findPython();
	if (!python) return undefined;
	return (threads) => new Torch(python, threads);
}
