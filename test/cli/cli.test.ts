import fs from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { file, hourly, temporary } from '../files.js';
import { type Finished, oplus } from './run.js';

const commands = ['devices', 'forecast', 'stream', 'generate', 'perplexity', 'protein', 'analyze', 'demo'];
/** A model that trains in a second. */
const small = ['--length', '48', '--horizon', '12', '--dim', '16', '--heads', '2', '--layers', '1', '--epochs', '4'];

/** The one object on stdout. */
function json({ stdout, stderr, code }: Finished): Record<string, unknown> {
	expect(code, stderr).toBe(0);
	expect(stdout.trimEnd().split('\n')).toHaveLength(1);
	return JSON.parse(stdout) as Record<string, unknown>;
}

/** It failed with one line that says why, and nothing on stdout. */
function sentence({ stdout, stderr, code }: Finished, expected: number): string {
	expect(code, stderr).toBe(expected);
	expect(stdout).toBe('');
	const lines = stderr
		.trimEnd()
		.split('\n')
		.filter((line) => line.startsWith('oplus: ') || line.startsWith('error: '));
	expect(lines, stderr).toHaveLength(1);
	expect(stderr).not.toMatch(/\n {4}at /);
	return lines[0]!;
}

let data: string;
let folder: string;
beforeAll(async () => {
	data = await file('hourly.csv', hourly(1000));
	folder = await temporary();
});

describe('every command', () => {
	test.each(commands)('%s --help names what every command has', async (name) => {
		const { code, stdout } = await oplus([name, '--help']);
		expect(code).toBe(0);
		for (const option of ['--device', '--seed', '--json', '--help']) expect(stdout).toContain(option);
	});

	test.each([
		['no such command', ['fly']],
		['no such option', ['devices', '--fast']],
		['an option that is missing', ['forecast']],
		['a number that is none', ['forecast', '--data', 'x.csv', '--length', 'long']],
		['a name that is not one of the names', ['forecast', '--data', 'x.csv', '--mixer', 'lstm']],
		['a device that is none', ['devices', '--device', 'tpu']],
		['one argument too many', ['devices', 'all']],
	])('%s: exit code 2', async (_, args) => {
		sentence(await oplus(args), 2);
	});

	test('widths that do not fit are wrong usage too', async () => {
		const found = sentence(await oplus(['forecast', '--data', data, '--dim', '10', '--heads', '4']), 2);
		expect(found).toContain('expected a multiple of heads (4)');
	});

	test('a device that is not there: why', async () => {
		expect(sentence(await oplus(['devices', '--device', 'cuda:77']), 1)).toContain('device cuda:77 is not there, expected one of cpu');
	});

	test('OPLUS_DEBUG=1 shows where an error comes from', async () => {
		const { stderr, code } = await oplus(['forecast', '--data', data, '--columns', 'none'], undefined, { OPLUS_DEBUG: '1' });
		expect(code).toBe(1);
		expect(stderr).toMatch(/oplus: .*there is no column `none`[\s\S]*\n {4}at /);
	});
});

test('devices: the processor, and a reason for what is absent', async () => {
	const { devices, absent } = json(await oplus(['devices', '--json'])) as {
		devices: { name: string; threads: number }[];
		absent: { name: string; reason: string }[];
	};
	expect(devices[0]).toMatchObject({ name: 'cpu', threads: expect.any(Number) });
	for (const { reason } of absent) expect(reason).not.toBe('');
	expect((await oplus(['devices'])).stdout).toContain('cpu');
});

describe('forecast and stream', () => {
	test('train, test, save; then row by row with the same error', async () => {
		const out = path.join(folder, 'model');
		const args = ['forecast', '--data', data, ...small, '--out', out, '--seed', '5', '--json'];
		const first = json(await oplus(args));
		expect(first).toMatchObject({
			mixer: 'aaren',
			horizon: 12,
			epochs: 4,
			parameters: expect.any(Number),
			seconds: expect.any(Number),
			mae: expect.any(Number),
		});
		expect(first.mse as number).toBeLessThan((first.repeatMse as number) / 3);
		const weights = await fs.readFile(path.join(out, 'model.safetensors'));
		expect(JSON.parse(await fs.readFile(path.join(out, 'config.json'), 'utf8'))).toMatchObject({
			kind: 'forecaster',
			columns: ['load', 'heat'],
			horizon: 12,
		});

		const again = json(await oplus(args));
		expect(again.mse).toBe(first.mse);
		expect((await fs.readFile(path.join(out, 'model.safetensors'))).equals(weights)).toBe(true);

		const streamed = json(await oplus(['stream', '--model', out, '--data', data, '--json']));
		expect(streamed).toMatchObject({ steps: 248, secondsPerStep: expect.any(Number) });
		expect(streamed.maxDifference as number).toBeLessThan(1e-4);
		expect(streamed.stateBytes).toBe(streamed.stateBytesAtStart);
		expect(streamed.repeatMse).toBeCloseTo(first.repeatMse as number, 6);
		expect(streamed.mse as number).toBeLessThan((first.repeatMse as number) / 3);
		const people = await oplus(['stream', '--model', out, '--data', data, '--part', 'all']);
		expect(people.stdout).toMatch(/rows fed +1000/);
	});

	test('several mixers, horizons and seeds make a table', async () => {
		const out = path.join(folder, 'table');
		const found = json(
			await oplus([
				'forecast',
				'--data',
				data,
				...small,
				'--horizon',
				'3,6',
				'--mixer',
				'aaren,attention',
				'--seeds',
				'2',
				'--epochs',
				'1',
				'--out',
				out,
				'--json',
			]),
		);
		expect(
			(found.table as { horizon: number; mixer: string; seeds: number }[]).map(({ horizon, mixer, seeds }) => [horizon, mixer, seeds]),
		).toEqual([
			[3, 'aaren', 2],
			[3, 'attention', 2],
			[6, 'aaren', 2],
			[6, 'attention', 2],
		]);
		expect(found.runs).toHaveLength(8);
		expect(await fs.readdir(out)).toContain('attention-6-seed1');
	});

	test.each<[string, string, string[], string]>([
		['a bad cell', `${hourly(100)}2020-02-01 00:00:00,1,oops\n`, [], 'line 102, column 3: `heat` is "oops", expected a finite number'],
		['NaN', 'date,a\n2020-01-01,NaN\n', [], 'line 2, column 2: `a` is "NaN"'],
		[
			'a column that is not there',
			hourly(100),
			['--columns', 'load,OT'],
			'line 1: there is no column `OT`, expected one of `load`, `heat`',
		],
		['a cell too few', 'a,b\n1,2\n3\n', [], 'line 3, column 2: the row has 1 cells, expected 2'],
		['too short', hourly(100), [], 'line 101: the series is too short: 100 rows'],
		[
			'a date that is none',
			hourly(300).replace('2020-01-05 00', '\none fine day'),
			[],
			'line 99, column 1: the date is "one fine day:00:00"',
		],
	])('%s: one line with file, line and column', async (_, contents, more, expected) => {
		const place = await file('bad.csv', contents);
		expect(sentence(await oplus(['forecast', '--data', place, ...more]), 1)).toContain(`${place}, ${expected}`);
	});

	test('a model that is not there, and one that is no model', async () => {
		expect(sentence(await oplus(['stream', '--model', folder, '--data', data]), 1)).toContain('model.safetensors: no such file');
		const broken = path.dirname(await file('model.safetensors', 'not a model, but long enough'));
		expect(sentence(await oplus(['stream', '--model', broken, '--data', data]), 1)).toContain('model.safetensors, byte 0: the header');
	});

	test('Ctrl-C stops: exit code 1, one line, no half model', async () => {
		const out = path.join(folder, 'interrupted');
		let sent = 0;
		const finished = await oplus(
			['forecast', '--data', data, '--length', '48', '--horizon', '12', '--epochs', '100000', '--out', out],
			(stderr, child) => {
				if (sent === 0 && stderr.includes('epoch 1/')) {
					sent = Date.now();
					child.kill('SIGINT');
				}
			},
		);
		expect(sentence(finished, 1)).toBe('oplus: interrupted');
		expect(Date.now() - sent).toBeLessThan(10_000);
		await expect(fs.readdir(out)).rejects.toMatchObject({ code: 'ENOENT' });
	});
});

test('analyze: Aaren flat, the cache growing; plots and numbers', async () => {
	const out = path.join(folder, 'analyze');
	const found = json(await oplus(['analyze', '--tokens', '1024', '--dim', '16', '--heads', '2', '--layers', '1', '--out', out, '--json']));
	const points = found.points as Record<'tokens' | 'aarenBytes' | 'transformerBytes' | 'aarenSeconds' | 'transformerSeconds', number>[];
	expect(points).toHaveLength(64);
	expect(points.at(-1)!.tokens).toBe(1024);
	expect(new Set(points.map(({ aarenBytes }) => aarenBytes)).size).toBe(1);
	expect(points[0]!.aarenBytes).toBe(4 * 2 * (8 + 2));
	for (const { tokens, transformerBytes } of points) {
		expect(transformerBytes).toBeGreaterThanOrEqual(8 * 16 * tokens);
		expect(transformerBytes).toBeLessThanOrEqual(8 * 16 * Math.max(64, 2 * tokens));
	}
	for (let i = 1; i < points.length; i++) expect(points[i]!.aarenSeconds).toBeGreaterThan(points[i - 1]!.aarenSeconds);
	expect((await fs.readdir(out)).sort()).toEqual(['analyze.json', 'memory.svg', 'time.svg']);
	expect(await fs.readFile(path.join(out, 'memory.svg'), 'utf8')).toMatch(/^<svg[\s\S]*Transformer: key-value cache[\s\S]*<\/svg>$/);
	expect(JSON.parse(await fs.readFile(path.join(out, 'analyze.json'), 'utf8')).points).toEqual(points);
});

test('demo: trains, streams and writes a page that is one file', async () => {
	const out = path.join(folder, 'demo');
	const found = json(await oplus(['demo', '--epochs', '3', '--out', out, '--json']));
	expect(found.report).toBe(path.resolve(out, 'report.html'));
	expect(found.mse as number).toBeLessThan(0.75 * (found.repeatMse as number));
	expect(found.maxDifference as number).toBeLessThan(1e-4);
	const page = await fs.readFile(found.report as string, 'utf8');
	expect(page.match(/<svg/g)).toHaveLength(5);
	expect(page).not.toMatch(/(src|href)="(?!data:)/);
	expect(page.trimEnd().endsWith('</html>')).toBe(true);
});
