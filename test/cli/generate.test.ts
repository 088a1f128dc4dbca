import { spawn } from 'node:child_process';
import fs from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../lib/cache/index.js';
import { generateText } from '../../lib/generate/index.js';
import { Llama } from '../../lib/models/llama.js';
import { temporary } from '../files.js';
import { made, pathOf, published } from '../models/llama/models.js';
import { type Finished, oplus } from './run.js';

const prompt = 'Lily and Tom went';
let model: string;
let llama: Llama;
let folder: string;
beforeAll(async () => {
	model = published ? await pathOf('stories260K') : await made();
	llama = await Llama.load(model);
	folder = await temporary();
});

const generate = (...args: string[]) => oplus(['generate', '--model', model, ...args]);

/** The one object on stdout. */
function json({ stdout, stderr, code }: Finished): Record<string, unknown> & { text: string; ids: number[] } {
	expect(code, stderr).toBe(0);
	expect(stdout.trimEnd().split('\n')).toHaveLength(1);
	return JSON.parse(stdout);
}

/** What it says went wrong: one line, and nothing on stdout. */
function refusal({ stdout, stderr, code }: Finished, expected: number): string {
	expect(code, stderr).toBe(expected);
	expect(stdout).toBe('');
	const lines = stderr
		.trimEnd()
		.split('\n')
		.filter((line) => !line.includes('loaded in') && !line.startsWith('note: ') && !line.startsWith('(--help'));
	expect(lines, stderr).toHaveLength(1);
	return lines[0]!;
}

/** A line of a shell. */
function shell(line: string): Promise<Finished> {
	return new Promise((resolve, reject) => {
		const child = spawn('bash', ['-c', line], { stdio: ['ignore', 'pipe', 'pipe'] });
		let [stdout, stderr] = ['', ''];
		child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
		child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
		child.on('error', reject);
		child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
	});
}
const main = `'${process.execPath}' '${path.join(__dirname, '..', '..', 'dist', 'cli', 'main.js')}' generate --model`;

describe.each(published ? ['stories260K_bos', 'stories260K_prompt', 'tinystories656k'] : [])('%s', (name) => {
	test('the likeliest tokens are those of the golden run', async () => {
		const golden = JSON.parse(await fs.readFile(path.join(published!, 'golden', `${name}.json`), 'utf8'));
		const place = await pathOf(name.split('_')[0]!);
		const own = golden.greedy_ids.slice(golden.prompt_ids.length);
		const text = golden.prompt.replace('<|start_story|>', '');
		const args = ['generate', '--model', place, '--prompt', text, '--temperature', '0', '--max-tokens', `${own.length}`, '--json'];
		const found = json(await oplus(args));
		expect(found.ids).toEqual(own);
		const { tokenizer } = await Llama.load(place);
		expect(text + found.text).toBe(tokenizer.decode(golden.greedy_ids));
		expect(found).toMatchObject({
			reason: own.at(-1) === 2 ? 'eos' : 'length',
			tokens: own.length,
			promptTokens: golden.prompt_ids.length,
		});
		if (own.at(-1) !== 2) return;
		const further = json(await oplus([...args, '--ignore-eos', '--max-tokens', `${own.length + 5}`]));
		expect(further.ids.slice(0, own.length)).toEqual(own);
		expect(further).toMatchObject({ reason: 'length', tokens: own.length + 5 });
	});
});

test('text on stdout, figures on stderr; as an object with --json', async () => {
	const args = ['--prompt', prompt, '--max-tokens', '40', '--seed', '3'];
	const found = json(await generate(...args, '--json'));
	expect(found).toMatchObject({
		model,
		tokens: 40,
		reason: 'length',
		cache: 'full',
		size: null,
		states: (found.promptTokens as number) + 39, // the last token is not fed
		promptTokens: llama.tokenizer.encode(prompt).length,
		seed: 3,
	});
	for (const name of ['cacheBytes', 'tokensPerSecond', 'seconds', 'promptSeconds']) expect(found[name]).toBeGreaterThan(0);
	const people = await generate(...args);
	expect(people.code).toBe(0);
	expect(people.stdout.replace(/\n$/, '')).toBe(found.text.replace(/\n$/, ''));
	expect(people.stderr).toMatch(/40 tokens in .* tokens\/s; prompt of \d+ in .*; full: \d+ states a layer, .*; as many tokens as/);
});

test('the same seed gives the same text, another seed another', async () => {
	const text = async (seed: string) => json(await generate('--prompt', prompt, '--max-tokens', '40', '--seed', seed, '--json')).text;
	const first = await text('7');
	expect(await text('7')).toBe(first);
	expect(await text('8')).not.toBe(first);
});

test.each<[string, string[], Policy]>([
	['full', [], full()],
	['window', ['--states', '12'], window(12)],
	['window+3', ['--states', '12'], window(12, { sinks: 3 })],
	['h2o', ['--states', '12'], h2o(12)],
	['tova', ['--states', '12'], tova(12)],
])('--cache %s: the tokens that a session of the library gives', async (cache, more, policy) => {
	for (const [positions, dtype, prefill] of [
		['original', 'f32', 'stream'],
		['cache', 'f16', 'select'],
	] as const) {
		using session = llama.session({ cache: policy, positions, dtype, prefill });
		const long = `${prompt} to the park and then they went to the house and saw a big red ball`;
		const options = {
			temperature: 0.7,
			topK: 9,
			topP: 0.9,
			minP: 0.01,
			repetitionPenalty: 1.3,
			frequencyPenalty: 0.2,
			presencePenalty: -0.1,
		};
		const expected: number[] = [];
		for await (const { token } of session.generate(long, { ...options, seed: 5, maxTokens: 30, ignoreEos: true })) expected.push(token);
		const sampling = ['--temperature', '0.7', '--top-k', '9', '--top-p', '0.9', '--min-p', '0.01', '--repetition-penalty', '1.3'];
		const penalties = ['--frequency-penalty', '0.2', '--presence-penalty', '-0.1', '--ignore-eos', '--seed', '5', '--max-tokens', '30'];
		const memory = ['--cache', cache, ...more, '--positions', positions, '--cache-type', dtype, '--prefill', prefill];
		const found = json(await generate('--prompt', long, ...sampling, ...penalties, ...memory, '--json'));
		expect(found.ids).toEqual(expected);
		expect(found).toMatchObject({ states: session.states, cacheBytes: session.bytes, positions, cacheType: dtype, prefill, cache });
		if (cache !== 'full') expect(found.states).toBe(12);
	}
});

test('--threads 1 gives the same text', async () => {
	const args = ['--prompt', prompt, '--max-tokens', '20', '--json'];
	expect(json(await generate(...args, '--threads', '1')).ids).toEqual(json(await generate(...args)).ids);
});

test('--stop, several times: the first to come ends the text and is no part of it', async () => {
	const args = ['--prompt', prompt, '--max-tokens', '60', '--temperature', '0', '--json'];
	const whole = json(await generate(...args)).text;
	const stop = whole.slice(20, 24);
	const found = json(await generate(...args, '--stop', 'never said', '--stop', stop));
	expect(found).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), reason: 'stop' });
});

describe('where the prompt comes from', () => {
	const args = ['--max-tokens', '10', '--temperature', '0', '--json'];

	test('a file, without its last line break, or stdin', async () => {
		const expected = json(await generate('--prompt', prompt, ...args)).ids;
		const place = path.join(folder, 'prompt.txt');
		await fs.writeFile(place, `${prompt}\r\n`);
		expect(json(await generate('--prompt-file', place, ...args)).ids).toEqual(expected);
		expect(json(await shell(`echo '${prompt}' | ${main} '${model}' --prompt-file - ${args.join(' ')}`)).ids).toEqual(expected);
	});

	test('nowhere: it begins as texts begin', async () => {
		const found = json(await generate(...args));
		using session = llama.session({ cache: full() });
		expect(found.ids).toEqual(
			(await generateText(asDecoder(session), llama.tokenizer, [llama.tokenizer.bos!], { temperature: 0, maxTokens: 10 })).tokens,
		);
	});
});

const asDecoder = (session: ReturnType<Llama['session']>) => ({
	vocabulary: llama.config.vocabulary,
	next: (tokens: ArrayLike<number>) => session.next(tokens),
});

test.each(published ? ['tinystories656k'] : [])("%s with a chat template: a user's message as the template writes it", async (name) => {
	const place = path.join(folder, 'chat');
	await fs.cp(path.join(published!, name), place, { recursive: true });
	const template = '{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}';
	await fs.writeFile(path.join(place, 'chat_template.jinja'), template);
	const args = ['generate', '--model', place, '--temperature', '0', '--max-tokens', '8', '--json'];
	const chat = json(await oplus([...args, '--chat', '--system', 'Be kind.', '--prompt', 'Hello']));
	const { tokenizer } = await Llama.load(place);
	const ids = tokenizer.encode(`${tokenizer.name(tokenizer.bos!)}system: Be kind.\nuser: Hello\n`, { special: false });
	expect(chat.promptTokens).toBe(ids.length);
	const plain = json(await oplus([...args, '--prompt', 'system: Be kind.\nuser: Hello\n']));
	expect(plain.ids).not.toEqual(json(await oplus([...args, '--chat', '--prompt', 'Hello'])).ids);
	using loaded = await Llama.load(place);
	using session = loaded.session({ cache: full() });
	const expected: number[] = [];
	for await (const { token } of session.generate(ids, { temperature: 0, maxTokens: 8 })) expected.push(token);
	expect(chat.ids).toEqual(expected);
});

describe('leaving early', () => {
	const endless = [
		'--prompt',
		prompt,
		'--cache',
		'tova',
		'--states',
		'32',
		'--positions',
		'cache',
		'--ignore-eos',
		'--max-tokens',
		'100000000',
	];

	test('Ctrl-C: what was generated stays, its line is ended, exit code 1', async () => {
		const trace = path.join(folder, 'interrupted.html');
		let asked = false;
		const found = await oplus(['generate', '--model', model, ...endless, '--trace', trace], (_, child) => {
			if (asked) return;
			asked = true;
			let said = '';
			const stop = (text: string) => {
				if ((said += text).length <= 30) return;
				child.stdout!.off('data', stop); // a second Ctrl-C would end it at once
				child.kill('SIGINT');
			};
			child.stdout!.on('data', stop);
		});
		expect(found.code, found.stderr).toBe(1);
		expect(found.signal).toBe(null);
		expect(found.stderr.trimEnd().split('\n').at(-1)).toBe('oplus: interrupted');
		expect(found.stdout.length).toBeGreaterThan(30);
		expect(found.stdout.endsWith('\n')).toBe(true);
		const { text } = json(await generate(...endless.slice(0, -1), `${found.stdout.length}`, '--json'));
		const said = found.stdout.slice(0, -1);
		expect(said.startsWith(text.slice(0, said.length)) && text.length > 30).toBe(true);
		expect(await fs.readFile(trace, 'utf8')).toContain('</html>');
	});

	test('Ctrl-C with --json: nothing on stdout', async () => {
		const found = await oplus(['generate', '--model', model, ...endless, '--json'], (stderr, child) => {
			if (!stderr.includes('interrupted')) setTimeout(() => child.kill('SIGINT'), 300);
		});
		expect(found).toMatchObject({ code: 1, stdout: '' });
		expect(found.stderr).toContain('oplus: interrupted');
	});

	test('who reads may leave: no error', async () => {
		const found = await shell(`${main} '${model}' ${endless.map((arg) => `'${arg}'`).join(' ')} | head -c 10; echo " \${PIPESTATUS[0]}"`);
		expect(found.stdout).toMatch(/^[\s\S]{10} 0\n$/);
		expect(found.stderr.trimEnd().split('\n')).toHaveLength(1); // that the model was loaded
	});
});

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

test('more tokens than the trained context: a note, and what to do', async () => {
	const { context } = llama.config;
	const { stderr } = await generate('--prompt', prompt, '--max-tokens', `${context}`, '--stop', ' ');
	expect(stderr).toMatch(/^note: \d+ positions are more than the \d+ that the model was trained on.*--positions cache/m);
	const more = ['--cache', 'tova', '--states', '8', '--positions', 'cache'];
	expect((await generate('--prompt', prompt, '--max-tokens', `${context}`, '--stop', ' ', ...more)).stderr).not.toContain('note: ');
});
