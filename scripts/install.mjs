// npm's "install" step: keep the prebuilt binary when one loads here, else build from source with cmake-js.
// `npm install --build-from-source` (npm_config_build_from_source=true) always builds. OPLUS_CUDA=OFF leaves CUDA out.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);

/** Loads in a process of its own: a binary made for another machine may crash, and a loaded file cannot be replaced on Windows. */
function loads() {
	const load = `require('node-gyp-build')(${JSON.stringify(root)})`;
	const tried = spawnSync(process.execPath, ['-e', load], { cwd: root, encoding: 'utf8' });
	if (tried.status === 0) return true;
	const reason = /Error: .*/.exec(tried.stderr ?? '')?.[0] ?? tried.signal ?? tried.error?.message;
	console.error(`oplus: no usable binary here (${reason})`);
	return false;
}

if (process.env.npm_config_build_from_source !== 'true' && loads()) process.exit(0);

/**
 * What CUDA kernels are compiled for: this machine's own cards. Where there is none, code that any later driver can finish: a
 * compiler without a card is a machine that builds or tests, and all architectures take it minutes.
 */
function architectures() {
	const asked = spawnSync('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader'], { encoding: 'utf8' });
	const found = [...new Set((asked.stdout ?? '').match(/^\d+\.\d+$/gm))];
	return found.length > 0 ? found.map((each) => `${each.replace('.', '')}-real`).join(';') : '75-virtual';
}

console.error('oplus: building from source');
const args = [require.resolve('cmake-js/bin/cmake-js'), 'build', '--parallel', String(os.availableParallelism())];
if (process.env.OPLUS_CUDA) args.push(`--CDOPLUS_CUDA=${process.env.OPLUS_CUDA}`);
args.push(`--CDOPLUS_CUDA_ARCHS=${process.env.OPLUS_CUDA_ARCHS || architectures()}`);
const built = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
if (built.status !== 0) {
	console.error('oplus: the build failed. It needs CMake 3.18, a C++20 compiler (g++ 10, clang 12) and make or ninja.');
	process.exit(built.status ?? 1);
}
