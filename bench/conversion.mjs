// A pretrained decoder whose softmax attention is replaced by FAVOR+ (the Performer paper's figure 5): how well stories260K predicts
// stories before, after, and while it is fine-tuned, beside exact attention fine-tuned in the same way.
//
//   npm run build && node bench/conversion.mjs
//
//   --steps N      of fine-tuning @default 640
//   --batch N      stories a step @default 16
//   --features M   of the models that are fine-tuned @default 256
//   --redraw R     steps between two draws of the features, where they are drawn again @default 10
//   --rate X       learning rate, reached in 20 steps, then down to 0 along a cosine @default 2e-3
//   --only NAME    only the runs whose name contains NAME
//   --quick        few steps and stories: shows that everything runs, says nothing of how well
//   --threads N    @default 2
//   --data FOLDER  where `models/stories260K` and `text/tinystories.txt` are @default OPLUS_DATA, or ../shared/data
//   --out FOLDER   @default bench/results
//
// Stories are those of the text between its marks; the last tenth of its bytes is held out (a story over the border is left out). Of each story
// BOS and the tokens behind it are fed, 256 at most; perplexity and accuracy are those of all tokens that follow one of these.
// What is finished is written after each run, and a later call with the same settings goes on from there. On two quiet cores: 15 minutes.
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { facts, oplus, require, root } from './machine.mjs';

const { Llama, TokenTexts, fit, noGrad, ops, scope } = oplus;
const { lineChart } = require('../dist/plot.js');

const { values: options } = parseArgs({
	options: {
		steps: { type: 'string' },
		batch: { type: 'string' },
		features: { type: 'string', default: '256' },
		redraw: { type: 'string' },
		rate: { type: 'string', default: '2e-3' },
		only: { type: 'string', multiple: true, default: [] },
		quick: { type: 'boolean', default: false },
		threads: { type: 'string', default: '2' },
		data: { type: 'string', default: process.env.OPLUS_DATA ?? path.join(root, '..', 'shared', 'data') },
		out: { type: 'string', default: path.join(root, 'bench', 'results') },
	},
});
const { quick } = options;
const settings = {
	model: 'stories260K',
	text: 'tinystories.txt',
	heldOut: 0.1,
	length: 256,
	steps: Number(options.steps ?? (quick ? 8 : 640)),
	batch: Number(options.batch ?? (quick ? 4 : 16)),
	features: Number(options.features),
	redraw: Number(options.redraw ?? (quick ? 2 : 10)),
	rate: Number(options.rate),
	warmup: 20,
	schedule: 'cosine',
	clip: 1,
	seed: 0,
	stories: quick ? 64 : null, // most that are learnt from; a quarter of it that are held out
};
for (const name of ['steps', 'batch', 'features', 'redraw', 'rate']) {
	if (!(settings[name] > 0)) throw new RangeError(`conversion: --${name} is ${options[name]}, expected a number above 0`);
}

/** Steps at which a model is judged: 0, and from a sixty-fourth of all on always twice as many. */
const places = [0, ...[64, 32, 16, 8, 4, 2, 1].map((part) => Math.max(1, Math.round(settings.steps / part)))];
const judged = [...new Set(places)];

const runs = ['all', 'attention'].flatMap((trainable) =>
	Object.entries({
		'exact attention': { attention: 'softmax' },
		'softmax features': {},
		'softmax features, redrawn': { redrawEvery: settings.redraw },
		'ReLU features': { kind: 'relu' },
	}).map(([name, how]) => ({ name, trainable, how: { features: settings.features, seed: settings.seed, trainable, ...how } })),
);
/** Conversions that are judged as they are. */
const untuned = ['softmax', 'hyperbolic', 'regularised'].flatMap((kind) =>
	(quick ? [64] : [16, 64, 256, 1024]).map((features) => ({ kind, features })),
);

oplus.setThreads(Number(options.threads));
const machine = facts(['node bench/conversion.mjs', ...process.argv.slice(2)].join(' '));
const title = `${machine.cpu.replaceAll(/[^A-Za-z0-9]+/g, '-').replaceAll(/^-|-$/g, '') || 'cpu'}-conversion${quick ? '-quick' : ''}`;
const file = (ending) => path.join(options.out, `${title}${ending}`);

const model = await Llama.load(path.join(options.data, 'models', 'stories260K', 'stories260K.bin'));
const { training, test } = storiesOf(path.join(options.data, 'text', settings.text));
const found = earlier() ?? { machine, settings, stories: [training.length, test.length], untuned: [], runs: [] };
console.log(
	`${machine.cpu}, ${options.threads} threads, load ${machine.load[0].toFixed(1)}; ${training.length} stories, ${test.length} held out`,
);

const wanted = ({ name, trainable }) => options.only.length === 0 || options.only.some((each) => `${name}, ${trainable}`.includes(each));
for (const each of options.only.length > 0 ? [] : untuned) {
	if (found.untuned.some(({ kind, features }) => kind === each.kind && features === each.features)) continue;
	const performer = await model.performerize({ ...each, seed: settings.seed });
	found.untuned.push({ ...each, ...(await judge(performer)) });
	performer.dispose();
	await write();
	console.log(`not tuned, ${each.kind}, ${each.features} features: perplexity ${found.untuned.at(-1).perplexity.toFixed(3)}`);
}
for (const run of runs.filter(wanted)) {
	if (found.runs.some(({ name, trainable }) => name === run.name && trainable === run.trainable)) continue;
	console.log(`\n${run.name}, ${run.trainable}`);
	found.runs.push(await tune(run));
	await write();
}
console.log(
	`\n${tables()}\n${['.json', '.md', '-all.svg', '-attention.svg'].map((ending) => path.relative(process.cwd(), file(ending))).join(', ')}`,
);
model.dispose();

/** @returns tokens of the stories before the border and behind it, each with BOS in front */
function storiesOf(place) {
	const bytes = fs.readFileSync(place);
	const border = Math.floor(bytes.length * (1 - settings.heldOut));
	const parts = { training: [], test: [] };
	const mark = '<|endoftext|>';
	for (let start = 0; start < bytes.length; ) {
		const next = bytes.indexOf(mark, start);
		const end = next < 0 ? bytes.length : next;
		const text = bytes.toString('utf8', start, end).trim();
		if (text !== '' && (end <= border || start >= border)) parts[end <= border ? 'training' : 'test'].push(model.tokenizer.encode(text));
		start = end + mark.length;
	}
	const most = settings.stories ?? Infinity;
	return { training: parts.training.slice(0, most), test: parts.test.slice(0, most / 4) };
}

/** What was finished under the same settings. */
function earlier() {
	if (!fs.existsSync(file('.json'))) return undefined;
	const before = JSON.parse(fs.readFileSync(file('.json'), 'utf8'));
	return JSON.stringify(before.settings) === JSON.stringify(settings) ? before : undefined;
}

/** Perplexity and accuracy on the stories that were held out. */
async function judge(decoder) {
	const texts = new TokenTexts(test, { length: settings.length });
	const sums = { nll: 0, right: 0, tokens: 0 };
	for (let from = 0; from < texts.length; from += settings.batch) {
		const indices = Array.from({ length: Math.min(settings.batch, texts.length - from) }, (_, i) => from + i);
		const { x, y } = texts.batch(indices);
		const targets = Int32Array.from(y.flatMap((row) => [...row]));
		const V = model.config.vocabulary;
		const read = noGrad(() =>
			scope(() => {
				const logits = ops.reshape(decoder.forward(x), [targets.length, V]);
				return { logits: logits.read(), losses: ops.crossEntropy(logits, targets).read() };
			}),
		);
		const [logits, losses] = await Promise.all([read.logits, read.losses]);
		for (const [n, target] of targets.entries()) {
			if (target < 0) continue;
			let best = 0;
			for (let v = 1; v < V; v++) if (logits[n * V + v] > logits[n * V + best]) best = v;
			sums.nll += losses[n];
			sums.right += best === target ? 1 : 0;
			sums.tokens++;
		}
	}
	return { perplexity: Math.exp(sums.nll / sums.tokens), accuracy: sums.right / sums.tokens, tokens: sums.tokens };
}

/** A model converted and fine-tuned: how well it does at each of the steps in `judged`. */
async function tune({ name, trainable, how }) {
	const decoder = await model.performerize(how);
	const points = [];
	const point = async (step, loss) => {
		points.push({ step, loss, ...(await judge(decoder)) });
		const { perplexity, accuracy } = points.at(-1);
		console.log(
			`    step ${step}: perplexity ${perplexity.toFixed(3)}, accuracy ${(100 * accuracy).toFixed(2)} %${loss ? `, loss ${loss.toFixed(4)}` : ''}`,
		);
	};
	await point(0, null);
	const { steps, batch, rate, warmup, clip, seed } = settings;
	const texts = new TokenTexts(training, { length: settings.length });
	const epochs = Math.ceil(steps / Math.ceil(texts.length / batch));
	const every = judged.reduce(common);
	const schedule = ({ step }) => 0.5 * (1 + Math.cos((Math.PI * step) / steps)); // over these steps, not over whole epochs
	const started = performance.now();
	for await (const { step, loss } of fit(decoder, texts, { epochs, batch, rate, schedule, warmup, clip, seed, every })) {
		if (judged.includes(step)) await point(step, loss);
		if (step >= steps) break;
	}
	decoder.dispose();
	return { name, trainable, points, seconds: (performance.now() - started) / 1000 };
}

/** The largest number that divides both. */
function common(a, b) {
	return b === 0 ? a : common(b, a % b);
}

async function write() {
	fs.mkdirSync(options.out, { recursive: true });
	fs.writeFileSync(file('.json'), `${JSON.stringify(found, null, 2)}\n`);
	fs.writeFileSync(file('.md'), tables());
	for (const [trainable, what] of [
		['all', 'all parameters'],
		['attention', "attention's linear maps"],
	]) {
		const lines = found.runs
			.filter((run) => run.trainable === trainable)
			.map(({ name, points }) => ({ name, points: points.map(({ step, perplexity }) => [step, perplexity]) }));
		if (lines.length === 0) continue;
		const [exact] = lines[0].points[0][0] === 0 && lines[0].name === 'exact attention' ? lines[0].points : [];
		const before = exact ? [{ name: 'before conversion', points: [exact, [settings.steps, exact[1]]], dashed: true }] : [];
		const chart = await lineChart({
			title: `stories260K with FAVOR+ in place of its attention: fine-tuning ${what}`,
			subtitle: `${settings.features} features, ${settings.batch} stories of up to ${settings.length} tokens a step, learning rate ${settings.rate}`,
			x: { title: 'steps', zero: true },
			y: { title: 'perplexity of stories held out', log: true },
			lines: [...lines, ...before],
		});
		fs.writeFileSync(file(`-${trainable}.svg`), chart);
	}
}

/** The figures as Markdown. */
function tables() {
	const row = (cells) => `| ${cells.join(' | ')} |\n`;
	const head = (cells) => row(cells) + row(cells.map(() => '---'));
	const cell = ({ perplexity, accuracy }) => `${perplexity.toPrecision(4)} (${(100 * accuracy).toFixed(1)} %)`;
	const parts = [
		`${settings.model} on the last tenth of ${settings.text}: perplexity (and accuracy) after so many steps of fine-tuning, ` +
			`${settings.batch} stories of up to ${settings.length} tokens each, ${settings.features} features, drawn again every ${settings.redraw} steps ` +
			`where it says so. \`${found.machine.command}\`, ${found.machine.cpu}, commit ${found.machine.commit.slice(0, 12)}.\n\n`,
	];
	parts.push(head(['attention', 'what learns', ...judged.map(String), 'seconds']));
	for (const { name, trainable, points, seconds } of found.runs)
		parts.push(row([name, trainable, ...points.map(cell), seconds.toFixed(0)]));
	if (found.untuned.length > 0) parts.push('\nConverted and not tuned:\n\n', head(['features', 'how many', 'perplexity (accuracy)']));
	for (const { kind, features, ...point } of found.untuned) parts.push(row([kind, features, cell(point)]));
	return parts.join('');
}
