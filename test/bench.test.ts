import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';

const root = path.dirname(__dirname);

/** Every number under a value, with the way to it. */
function* numbersIn(value: unknown, where: string): Generator<[where: string, value: unknown]> {
	if (value === null || typeof value === 'number') yield [where, value];
	else if (typeof value === 'object') for (const [name, inner] of Object.entries(value)) yield* numbersIn(inner, `${where}.${name}`);
}

it('the benchmark runs on small sizes and writes figures for every line', { timeout: 300_000 }, () => {
	const out = fs.mkdtempSync(path.join(os.tmpdir(), 'oplus-bench-'));
	try {
		const { status, stderr } = spawnSync(process.execPath, ['bench/run.mjs', '--quick', '--threads', '1', '--out', out], {
			cwd: root,
			encoding: 'utf8',
		});
		expect(stderr).toBe('');
		expect(status).toBe(0);
		const files = fs.readdirSync(out);
		expect(files.map((file) => path.extname(file)).sort()).toEqual(['.html', '.json']);
		const { machine, lines, curves } = JSON.parse(fs.readFileSync(path.join(out, files.find((file) => file.endsWith('.json'))!), 'utf8'));
		for (const fact of ['cpu', 'instructions', 'date', 'commit', 'command', 'node']) expect(machine[fact], fact).toMatch(/\S/);
		expect(new Set(lines.map(({ name }: { name: string }) => name)).size).toBe(12);
		for (const line of lines) {
			for (const [where, value] of numbersIn(line, line.name)) {
				expect(Number.isFinite(value), `${where} is ${value}`).toBe(true);
				if (!/noise|operations/.test(where)) expect(value, where).toBeGreaterThan(0);
			}
		}
		expect(curves).toHaveLength(2);
		for (const curve of curves) for (const [where, value] of numbersIn(curve.points, curve.name)) expect(value, where).toBeGreaterThan(0);
	} finally {
		fs.rmSync(out, { recursive: true });
	}
});
