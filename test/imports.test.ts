import fs from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { root } from './contract.js';

/** From the top to the bottom: a file may import what stands below it, and files of its own line. */
const order = [
	['index'],
	['cli'],
	['models', 'report', 'plot'],
	['generate'],
	['train'],
	['layers'],
	['cache'],
	['ops'],
	['autograd'],
	['tensor'],
	['device'],
	['binding'],
	['text'],
	['io', 'random', 'philox', 'dims'],
	['errors'],
];

/** These know nothing of tensors and devices. */
const leaves = ['io', 'random', 'philox', 'dims', 'errors'];

const lib = path.join(root, 'lib');
const files = fs.readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));

/** What a file imports from lib when it runs: types alone do not count. */
function imports(file: string): string[] {
	const text = fs.readFileSync(path.join(lib, file), 'utf8');
	const found: string[] = [];
	for (const [, names, from] of text.matchAll(/^(?:import|export)\s+([^;'"]*?)(?:\s*from\s*)?'(\.[^']*)';/gm)) {
		const onlyTypes =
			/^type\s/.test(names!) ||
			(/^\{[^}]*\}$/.test(names!.trim()) &&
				names!
					.replace(/[{}]/g, '')
					.split(',')
					.every((each) => /^\s*(type\s.*)?$/.test(each)));
		if (!onlyTypes) found.push(path.relative(lib, path.resolve(lib, path.dirname(file), from!)).replace(/\.js$/, '.ts'));
	}
	return found;
}

const place = (file: string) => file.split(path.sep)[0]!.replace(/\.ts$/, '');
const rank = (file: string) => order.findIndex((line) => line.includes(place(file)));

test('every file has its place', () => {
	expect(files.length).toBeGreaterThan(20);
	for (const file of files) expect(rank(file), `${file} is in no line of \`order\``).toBeGreaterThanOrEqual(0);
});

test('arrows point down only', () => {
	let arrows = 0;
	for (const file of files) {
		for (const to of imports(file)) {
			if (to.startsWith('..')) continue; // package.json and the like
			arrows++;
			expect(fs.existsSync(path.join(lib, to)), `${file} imports ${to}`).toBe(true);
			expect(rank(to), `${file} imports ${to}, which stands above it`).toBeGreaterThanOrEqual(rank(file));
			if (leaves.includes(place(file)))
				expect(['errors', ...leaves.filter((leaf) => leaf === place(file))], `${file} is a leaf`).toContain(place(to));
		}
	}
	expect(arrows).toBeGreaterThan(40);
});

test('no circles', () => {
	const open = new Set<string>();
	const done = new Set<string>();
	const visit = (file: string): void => {
		expect([...open], `a circle through ${file}`).not.toContain(file);
		if (done.has(file)) return;
		open.add(file);
		for (const to of imports(file)) if (!to.startsWith('..')) visit(to);
		open.delete(file);
		done.add(file);
	};
	for (const file of files) visit(file);
	expect(done.size).toBe(files.length);
});

test('only lib/binding.ts loads the addon, and napi.h has one door', () => {
	for (const file of files) {
		const text = fs.readFileSync(path.join(lib, file), 'utf8');
		if (file !== 'binding.ts') expect(text, file).not.toMatch(/node-gyp-build|\.node'/);
	}
	const native = fs
		.readdirSync(path.join(root, 'native'), { recursive: true, encoding: 'utf8' })
		.filter((name) => /\.(cpp|cu|h)$/.test(name));
	const doors = native.filter((file) => /#include\s*[<"]napi/.test(fs.readFileSync(path.join(root, 'native', file), 'utf8')));
	expect(doors).toEqual([path.join('addon', 'door.h')]);
	const core = native.filter((file) => file.startsWith('core'));
	expect(core.length).toBeGreaterThan(5);
});

test('files stay short', () => {
	const long = (folder: string, pattern: RegExp) =>
		fs
			.readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
			.filter((name) => pattern.test(name))
			.map((name): [string, number] => [path.join(folder, name), fs.readFileSync(path.join(root, folder, name), 'utf8').split('\n').length])
			.filter(([, lines]) => lines > 300);
	expect(long('lib', /\.ts$/)).toEqual([]);
	expect(long('native', /\.(cpp|cu|h)$/)).toEqual([]);
	expect(long('test', /\.ts$/)).toEqual([]);
});
