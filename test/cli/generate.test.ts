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
import { json } from './said.js';

type Found = Record<string, unknown> & { text: string; ids: number[] };

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
		const found = json<Found>(await oplus(args));
		expect(found.ids).toEqual(own);
		const { tokenizer } = await Llama.load(place);
		expect(text + found.text).toBe(tokenizer.decode(golden.greedy_ids));
		expect(found).toMatchObject({
			reason: own.at(-1) === 2 ? 'eos' : 'length',
			tokens: own.length,
			promptTokens: golden.prompt_ids.length,
		});
		if (own.at(-1) !== 2) return;
		const further = json<Found>(await oplus([...args, '--ignore-eos', '--max-tokens', `${own.length + 5}`]));
		expect(further.ids.slice(0, own.length)).toEqual(own);
		expect(further).toMatchObject({ reason: 'length', tokens: own.length + 5 });
	});
});

test('text on stdout, figures on stderr; as an object with --json', async () => {
	const args = ['--prompt', prompt, '--max-tokens', '40', '--seed', '3'];
	const found = json<Found>(await generate(...args, '--json'));
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
	const text = async (seed: string) => json<Found>(await generate('--prompt', prompt, '--max-tokens', '40', '--seed', seed, '--json')).text;
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
		const found = json<Found>(await generate('--prompt', long, ...sampling, ...penalties, ...memory, '--json'));
		expect(found.ids).toEqual(expected);
		expect(found).toMatchObject({ states: session.states, cacheBytes: session.bytes, positions, cacheType: dtype, prefill, cache });
		if (cache !== 'full') expect(found.states).toBe(12);
	}
});

test('--threads 1 gives the same text', async () => {
	const args = ['--prompt', prompt, '--max-tokens', '20', '--json'];
	expect(json<Found>(await generate(...args, '--threads', '1')).ids).toEqual(json<Found>(await generate(...args)).ids);
});

test('--stop, several times: the first to come ends the text and is no part of it', async () => {
	const args = ['--prompt', prompt, '--max-tokens', '60', '--temperature', '0', '--json'];
	const whole = json<Found>(await generate(...args)).text;
	const stop = whole.slice(20, 24);
	const found = json<Found>(await generate(...args, '--stop', 'never said', '--stop', stop));
	expect(found).toMatchObject({ text: whole.slice(0, whole.indexOf(stop)), reason: 'stop' });
});

describe('where the prompt comes from', () => {
	const args = ['--max-tokens', '10', '--temperature', '0', '--json'];

	test('a file, without its last line break, or stdin', async () => {
		const expected = json<Found>(await generate('--prompt', prompt, ...args)).ids;
		const place = path.join(folder, 'prompt.txt');
		await fs.writeFile(place, `${prompt}\r\n`);
		expect(json<Found>(await generate('--prompt-file', place, ...args)).ids).toEqual(expected);
		expect(json<Found>(await shell(`echo '${prompt}' | ${main} '${model}' --prompt-file - ${args.join(' ')}`)).ids).toEqual(expected);
	});

	test('nowhere: it begins as texts begin', async () => {
		const found = json<Found>(await generate(...args));
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
	const chat = json<Found>(await oplus([...args, '--chat', '--system', 'Be kind.', '--prompt', 'Hello']));
	const { tokenizer } = await Llama.load(place);
	const ids = tokenizer.encode(`${tokenizer.name(tokenizer.bos!)}system: Be kind.\nuser: Hello\n`, { special: false });
	expect(chat.promptTokens).toBe(ids.length);
	const plain = json<Found>(await oplus([...args, '--prompt', 'system: Be kind.\nuser: Hello\n']));
	expect(plain.ids).not.toEqual(json<Found>(await oplus([...args, '--chat', '--prompt', 'Hello'])).ids);
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
		const { text } = json<Found>(await generate(...endless.slice(0, -1), `${found.stdout.length}`, '--json'));
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
		const args = endless.map((arg) => `'${arg}'`).join(' ');
		const found = await shell(`${main} '${model}' ${args} | head -c 10 | wc -c; echo "\${PIPESTATUS[0]}"`);
		expect(found.stdout).toBe('10\n0\n');
		expect(found.stderr.trimEnd().split('\n')).toHaveLength(1); // that the model was loaded
	});
});

test('more tokens than the trained context: a note, and what to do', async () => {
	const { context } = llama.config;
	const { stderr } = await generate('--prompt', prompt, '--max-tokens', `${context}`, '--stop', ' ');
	expect(stderr).toMatch(/^note: \d+ positions are more than the \d+ that the model was trained on.*--positions cache/m);
	const more = ['--cache', 'tova', '--states', '8', '--positions', 'cache'];
	expect((await generate('--prompt', prompt, '--max-tokens', `${context}`, '--stop', ' ', ...more)).stderr).not.toContain('note: ');
});
