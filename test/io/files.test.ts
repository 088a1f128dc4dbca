import { spawnSync } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { exists, writeAtomic } from '../../lib/io/files.js';
import { temporary } from '../files.js';

test('makes folders, replaces what was there, leaves nothing else', async () => {
	const folder = await temporary();
	const place = path.join(folder, 'a', 'b.txt');
	expect(await exists(place)).toBe(false);
	await writeAtomic(place, 'one');
	await writeAtomic(place, [Buffer.from('tw'), Buffer.from('o')]);
	expect(await fs.readFile(place, 'utf8')).toBe('two');
	expect(await exists(place)).toBe(true);
	expect(await fs.readdir(path.dirname(place))).toEqual(['b.txt']);
});

test('when there is no room, the old file stays and nothing is left beside it', async () => {
	const folder = await temporary();
	const place = path.join(folder, 'model.bin');
	await fs.writeFile(place, 'old');
	// A limit on the size of files stands for the full disk: a write takes a part and the next fails, as it would there.
	const program = `
		process.on('SIGXFSZ', () => {}); // else it ends the process
		const { writeAtomic } = require(process.argv[1]);
		writeAtomic(process.argv[2], [Buffer.alloc(1000), Buffer.alloc(1 << 20)]).then(() => process.exit(9), (error) => console.log(error.code));
	`;
	const built = path.join(__dirname, '..', '..', 'dist', 'io', 'files.js');
	const { stdout } = spawnSync('bash', ['-c', `ulimit -f 64; exec "$0" -e "$1" "$2" "$3"`, process.execPath, program, built, place], {
		encoding: 'utf8',
	});
	expect(stdout.trim()).toBe('EFBIG');
	expect(await fs.readFile(place, 'utf8')).toBe('old');
	expect(await fs.readdir(folder)).toEqual(['model.bin']);
});
