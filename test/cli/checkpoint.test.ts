import fs from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { Random } from '../../lib/random.js';
import { file, hourly, temporary } from '../files.js';
import { type Finished, oplus } from './run.js';

const names = ['aaren-12-seed0', 'attention-12-seed0'];
const settings = ['--length', '48', '--horizon', '12', '--batch', '2'];

/** A cycle that turns into one of half the length after the training part: what is learnt does harm, so the first epoch is the best. */
function turning(): string {
	const random = new Random(1);
	const value = (t: number) => Math.sin((2 * Math.PI * t) / (t < 2100 ? 24 : 12)) + 0.1 * random.normal();
	return `load,heat\n${Array.from({ length: 3000 }, (_, t) => `${value(t)},${value(t + 6)}`).join('\n')}\n`;
}

let folder: string;
let data: string;
beforeAll(async () => {
	data = await file('turning.csv', turning());
	folder = await temporary();
});

/** What has to be the same, run by run. */
function figures({ stdout, stderr, code }: Finished): unknown[] {
	expect(code, stderr).toBe(0);
	const { runs } = JSON.parse(stdout) as { runs: Record<string, unknown>[] };
	return runs.map(({ seconds: _, model: __, ...rest }) => rest);
}

function weights(out: string): Promise<Buffer[]> {
	return Promise.all(names.map((name) => fs.readFile(path.join(out, name, 'model.safetensors'))));
}

/** The steps after which a command went on, by the name of the run. */
function resumed({ stderr }: Finished): [string, number][] {
	return [...stderr.matchAll(/^(\S+): goes on after step (\d+) of 630$/gm)].map(([, name, step]) => [name!, Number(step)]);
}

test('a command that is stopped by Ctrl-C and by a crash ends with the figures of one that is not', async () => {
	const args = ['forecast', '--data', data, ...settings, '--epochs', '6', '--rate', '0.01', '--mixer', 'aaren,attention', '--json'];
	const whole = path.join(folder, 'whole');
	const expected = figures(await oplus([...args, '--out', whole]));
	expect(expected).toMatchObject([{ bestEpoch: 1 }, { bestEpoch: 1 }]);

	const checkpoint = path.join(folder, 'checkpoints');
	const out = path.join(folder, 'pieces');
	const piece = (stopAt?: string, signal?: 'SIGINT' | 'SIGKILL') => {
		let sent = false;
		return oplus([...args, '--out', out, '--checkpoint', checkpoint], (stderr, child) => {
			if (sent || !stopAt || !stderr.includes(stopAt)) return;
			sent = true;
			child.kill(signal);
		});
	};
	const interrupted = await piece('aaren-12-seed0: epoch 2/6', 'SIGINT');
	expect(interrupted.code).toBe(1);
	expect(resumed(interrupted)).toEqual([]);
	const killed = await piece('attention-12-seed0: epoch 2/6', 'SIGKILL');
	expect(killed.signal).toBe('SIGKILL');
	const finished = await piece();
	const again = await piece();

	// From the step of Ctrl-C on (epochs have 105 steps); from at most 20 steps before the crash; from the end.
	const [[, afterInterrupt]] = resumed(killed) as [[string, number]];
	expect(afterInterrupt).toBeGreaterThanOrEqual(210);
	expect(resumed(finished).map(([name]) => name)).toEqual(names);
	const [[, afterEnd], [, afterKill]] = resumed(finished) as [[string, number], [string, number]];
	expect(afterEnd).toBe(630);
	expect(afterKill % 20).toBe(0);
	expect(afterKill).toBeGreaterThanOrEqual(200);
	expect(resumed(again)).toEqual(names.map((name) => [name, 630]));
	expect(again.stderr).not.toContain('epoch');

	for (const each of [finished, again]) expect(figures(each)).toEqual(expected);
	expect(await weights(out)).toEqual(await weights(whole));
	expect((await fs.readdir(checkpoint)).filter((name) => !name.endsWith('.tmp')).sort()).toEqual(
		names.map((name) => `${name}.safetensors`),
	);
});

test('a checkpoint of other settings, or other data, is refused: where, what was found, what was expected', async () => {
	const checkpoint = path.join(folder, 'refused');
	const place = path.join(checkpoint, 'aaren-12-seed0.safetensors');
	const changed = await file('hourly.csv', hourly(1000));
	const command = (...more: string[]) =>
		oplus([
			'forecast',
			'--data',
			data,
			...settings,
			'--dim',
			'8',
			'--epochs',
			'1',
			'--checkpoint',
			checkpoint,
			'--out',
			path.join(folder, 'm'),
			...more,
		]);
	expect((await command()).code).toBe(0);
	for (const [more, expected] of [
		[['--dim', '16'], 'dim is 8, expected 16'],
		[['--epochs', '2'], 'epochs is 1, expected 2'],
		[['--batch', '4'], 'batch is 2, expected 4'],
		[['--rate', '0.01'], 'rate is 0.003, expected 0.01'],
		[['--length', '60', '--lags', '24'], 'length is 48, expected 60'],
		[['--columns', 'heat'], 'columns is ["load","heat"], expected ["heat"]'],
		[['--data', changed], 'digest of the data is '],
	] as const) {
		const { code, stdout, stderr } = await command(...more);
		expect(code).toBe(1);
		expect(stdout).toBe('');
		expect(stderr.split('\n').filter((line) => line.startsWith('oplus: '))[0]).toContain(
			`${place}: the checkpoint is of another training: ${expected}`,
		);
	}
	await fs.writeFile(place, 'not a checkpoint, but long enough');
	expect((await command()).stderr).toContain(`oplus: ${place}, byte 0: the header`);
});
