import fs from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { temporary } from '../files.js';
import { made } from '../models/llama/models.js';
import { oplus } from './run.js';
import { refusal } from './said.js';

let model: string;
let folder: string;
beforeAll(async () => {
	model = await made();
	folder = await temporary();
});

const generate = (...args: string[]) => oplus(['generate', '--model', model, ...args]);

describe('wrong usage: one line, exit code 2', () => {
	test.each<[string[], string]>([
		[['--cache', 'tova'], '--states is missing, expected how many --cache tova may hold'],
		[['--cache', 'tova', '--states', '0'], 'expected an integer from 1'],
		[['--cache', 'window+4', '--states', '3'], '--states is 3, expected at least the 4 that window+4 always keeps'],
		[['--cache', 'tova', '--states', '2000000000'], '--states is 2000000000, expected at most 16777216'],
		[['--states', '5'], '--states is 5 and --cache is full'],
		[['--cache', 'lru', '--states', '5'], "argument 'lru' is invalid. expected full, window, window+N, h2o or tova"],
		[['--cache', 'window+', '--states', '5'], "argument 'window+' is invalid"],
		[['--positions', 'none'], 'expected one of original, cache'],
		[['--stop', ''], 'expected text'],
		[['--top-p', '2'], 'expected a number from 0 to 1'],
		[['--temperature', '-1'], 'expected a number from 0'],
		[['--repetition-penalty', '0'], 'repetitionPenalty is 0, expected a finite number above 0'],
		[['--max-tokens', '0'], 'expected an integer from 1'],
		[['--threads', '0'], 'expected an integer from 1'],
		[['--prompt', 'a', '--prompt-file', 'b'], 'cannot be used with'],
		[['--system', 'a'], '--system is given without --chat'],
		[['--chat'], '--chat is given without a message'],
		[['--chat', '--prompt', 'a'], 'the model has no chat template'],
		[['--trace', '/'], '--trace: / is a folder, expected a file'],
	])('%j', async (args, expected) => {
		expect(refusal(await generate(...args), 2)).toContain(expected);
	});

	test('no model', async () => {
		expect(refusal(await oplus(['generate']), 2)).toContain("required option '--model <path>' not specified");
	});
});

describe('what fails: one line, exit code 1', () => {
	test('files that are not there, or something else', async () => {
		const wrong = path.join(folder, 'wrong.txt');
		await fs.writeFile(wrong, Buffer.from([0x61, 0xff, 0xfe, 0x62]));
		expect(refusal(await oplus(['generate', '--model', 'nowhere']), 1)).toBe('oplus: nowhere: no such file');
		expect(refusal(await oplus(['generate', '--model', wrong]), 1)).toContain(wrong);
		expect(refusal(await generate('--prompt-file', path.join(folder, 'nothing')), 1)).toContain('cannot be opened (ENOENT)');
		expect(refusal(await generate('--prompt-file', wrong), 1)).toContain(`${wrong}: found bytes that are not UTF-8`);
		expect(refusal(await generate('--tokenizer', wrong), 1)).toContain(wrong);
		expect(refusal(await generate('--prompt-file', folder), 1)).toContain('expected a file');
	});

	test('a prompt longer than can be', async () => {
		const long = path.join(folder, 'long.txt');
		await fs.writeFile(long, Buffer.alloc(2 ** 26 + 1, 'a '));
		expect(refusal(await generate('--prompt-file', long), 1)).toContain('the text has more than 67108864 bytes, expected fewer');
	});
});
