import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

/** The package as a user gets it: packed, installed into an empty project where there is no compiler, and run. */

const execute = promisify(execFile);
const root = path.dirname(__dirname);
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'oplus-package-'));
const project = path.join(work, 'project');
const bin = path.join(work, 'bin');
// Node, npm and a shell, and nothing that could compile.
const env = { ...process.env, PATH: bin, OPLUS_CUDA_LIBRARY: '', NODE_OPTIONS: '' };

async function node(...args: string[]): Promise<string> {
	const { stdout } = await execute(process.execPath, args, { cwd: project, env });
	return stdout.trim();
}

beforeAll(async () => {
	const staged = path.join(work, 'staged');
	const { files } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { files: string[] };
	fs.mkdirSync(staged);
	for (const name of [...files, 'package.json', 'README.md', 'LICENSE', 'cmake']) {
		if (fs.existsSync(path.join(root, name))) fs.cpSync(path.join(root, name), path.join(staged, name), { recursive: true });
	}
	const prebuilt = path.join(staged, 'prebuilds', `${process.platform}-${process.arch}`);
	if (!fs.existsSync(prebuilt)) {
		fs.mkdirSync(prebuilt, { recursive: true });
		for (const file of fs.readdirSync(path.join(root, 'build', 'Release'))) {
			if (/\.(node|so)$/.test(file)) fs.copyFileSync(path.join(root, 'build', 'Release', file), path.join(prebuilt, file));
		}
	}
	fs.mkdirSync(bin);
	fs.symlinkSync(process.execPath, path.join(bin, 'node'));
	for (const name of ['sh', 'env']) fs.symlinkSync(`/bin/${name}`, path.join(bin, name));
	const npm = fs.realpathSync((await execute('sh', ['-c', 'command -v npm'])).stdout.trim());
	await execute(process.execPath, [npm, 'pack', '--ignore-scripts', '--pack-destination', work], { cwd: staged });
	const tarball = fs.readdirSync(work).find((name) => name.endsWith('.tgz'))!;
	fs.mkdirSync(project);
	fs.writeFileSync(path.join(project, 'package.json'), '{"name": "empty", "private": true}');
	await execute(process.execPath, [npm, 'install', '--no-audit', '--no-fund', '--prefer-offline', path.join(work, tarball)], {
		cwd: project,
		env,
	});
}, 300_000);

afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

const use = `
	const x = tensor([1, 2, 3, 4, 5, 6], [1, 3, 2]);
	using_(async () => {
		const layer = new Aaren({ dim: 2, heads: 1, seed: 1 });
		const y = await layer.forward(x).read();
		if (y.length !== 6 || !y.every(Number.isFinite)) throw new Error('wrong: ' + y);
		return 'fine';
	});
`;

test('nothing was compiled: the prebuilt binary is what loads', () => {
	expect(fs.existsSync(path.join(project, 'node_modules', 'oplus', 'build'))).toBe(false);
});

test('import', async () => {
	const code = `import { Aaren, tensor } from 'oplus'; const using_ = async (f) => console.log(await f()); ${use}`;
	expect(await node('--input-type=module', '-e', code)).toBe('fine');
});

test('require', async () => {
	const code = `const { Aaren, tensor } = require('oplus'); const using_ = async (f) => console.log(await f()); ${use}`;
	expect(await node('-e', code)).toBe('fine');
});

test('import and require give one implementation', async () => {
	const code = `import { createRequire } from 'node:module'; import { Tensor } from 'oplus';
		console.log(createRequire(import.meta.url)('oplus').Tensor === Tensor);`;
	fs.writeFileSync(path.join(project, 'both.mjs'), code);
	expect(await node('both.mjs')).toBe('true');
});

test('two worker threads at once, and again after terminate() in the middle of work', async () => {
	fs.writeFileSync(
		path.join(project, 'worker.cjs'),
		`const { parentPort, workerData } = require('node:worker_threads');
		const { Aaren, tensor } = require('oplus');
		const using_ = async (f) => parentPort.postMessage(await f());
		if (workerData === 'endless') {
			const layer = new Aaren({ dim: 256, heads: 4 });
			const x = tensor(new Float32Array(256 * 4096), [1, 4096, 256]);
			parentPort.postMessage('started');
			(async () => { for (;;) { const y = layer.forward(x); await y.read(); y.dispose(); } })();
		} else { ${use} }`,
	);
	fs.writeFileSync(
		path.join(project, 'main.cjs'),
		`const { Worker } = require('node:worker_threads');
		const start = (data) => { const w = new Worker('./worker.cjs', { workerData: data }); return [w, new Promise((ok, bad) => { w.on('message', ok); w.on('error', bad); })]; };
		(async () => {
			const both = [start(), start()];
			console.log((await Promise.all(both.map(([, done]) => done))).join(' '));
			for (let i = 0; i < 3; i++) {
				const [worker, started] = start('endless');
				await started;
				await new Promise((ok) => setTimeout(ok, 30 * i));
				await worker.terminate();
			}
			console.log(await start()[1]);
		})();`,
	);
	expect(await node('main.cjs')).toBe('fine fine\nfine');
});

test('the command is there', async () => {
	const main = path.join(project, 'node_modules', '.bin', 'oplus');
	expect(JSON.parse(await node(main, 'devices', '--json')).devices[0].name).toBe('cpu');
});

test('types resolve from both module systems', () => {
	const { exports } = JSON.parse(fs.readFileSync(path.join(project, 'node_modules', 'oplus', 'package.json'), 'utf8'));
	for (const kind of ['import', 'require']) {
		for (const file of Object.values(exports['.'][kind] as Record<string, string>)) {
			expect(fs.existsSync(path.join(project, 'node_modules', 'oplus', file)), file).toBe(true);
		}
	}
	expect(fs.existsSync(path.join(project, 'node_modules', 'oplus', 'binding.d.ts'))).toBe(true);
});

test('without a binary the error lists every path tried, why each failed, and what to do', async () => {
	const folder = path.join(project, 'node_modules', 'oplus', 'prebuilds');
	const hidden = `${folder}-hidden`;
	fs.renameSync(folder, hidden);
	try {
		const code = `try { require('oplus') } catch (error) { console.log(error.code + ' ' + error.message) }`;
		const missing = await node('-e', code);
		expect(missing).toContain('ERR_DEVICE oplus: the native addon does not load');
		for (const place of ['build/Release', 'build/Debug', `prebuilds/${process.platform}-${process.arch}`]) expect(missing).toContain(place);
		expect(missing).toContain('no such file');
		expect(missing).toContain('npm rebuild oplus --build-from-source');

		const broken = path.join(folder, `${process.platform}-${process.arch}`);
		fs.mkdirSync(broken, { recursive: true });
		fs.writeFileSync(path.join(broken, 'oplus.node'), 'not a library');
		expect(await node('-e', code)).toMatch(/oplus\.node: .*(file too short|invalid ELF header|not a|slice)/);
		fs.rmSync(folder, { recursive: true });
	} finally {
		fs.renameSync(hidden, folder);
	}
});
