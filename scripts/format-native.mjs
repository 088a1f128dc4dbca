// clang-format over C++ and CUDA: in place, or with --check only reported.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const sources = ['native', 'test/simt', 'bench'].flatMap((folder) =>
	fs
		.readdirSync(path.join(root, folder), { recursive: true })
		.filter((name) => /\.(h|cpp|cu)$/.test(name))
		.map((name) => path.join(folder, name)),
);
const check = process.argv.includes('--check');
const tool = path.join(
	path.dirname(require.resolve('clang-format-node/package.json')),
	JSON.parse(fs.readFileSync(require.resolve('clang-format-node/package.json'), 'utf8')).bin['clang-format'],
);
const { status } = spawnSync(process.execPath, [tool, ...(check ? ['--dry-run', '--Werror'] : ['-i']), ...sources], {
	cwd: root,
	stdio: 'inherit',
});
process.exit(status ?? 1);
