// Compiles lib/ to dist/: CommonJS, and a wrapper that hands the same names to `import`. One implementation, so a tensor made
// by a program's ES modules is a tensor to its CommonJS ones.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const dist = path.join(root, 'dist');
fs.rmSync(dist, { recursive: true, force: true });
const compiler = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
try {
	execFileSync(process.execPath, [compiler, '-p', path.join(root, 'tsconfig.build.json')], { stdio: 'inherit' });
} catch (error) {
	process.exit(error.status ?? 1);
}
for (const extension of ['mjs', 'd.mts']) fs.writeFileSync(path.join(dist, `index.${extension}`), "export * from './index.js';\n");
