// What language models of proteins learn in as many steps: ReLU- and softmax-Performer and a Transformer of the same size, causal and
// masked, on the test part and beside the frequencies of residues; and the memory and time of one training step against length.
//
//   node bench/protein.mjs [--fasta FILE] [--steps N] [--seeds N] [--out FOLDER] [--only NAME] [--lengths A,B,…] [--quick]
//
//   --fasta FILE   default: protein/uniprot20k.fasta.gz in OPLUS_DATA, or in ../shared/data
//   --steps N      of 16 windows of 256 tokens each; default 1500, some four minutes a model on two quiet cores
//   --seeds N      trainings of each kind, with 0 and the numbers after it; default 1
//   --only NAME    only models whose name contains NAME (causal, masked, relu, softmax, transformer), or memory alone
//   --lengths      tokens of the sequence in the step that is measured; default 1024 to 32768
//   --quick        small sizes, seconds in all: shows that everything runs, says nothing about proteins
//
// Writes protein.json after every model and every length, and what is there with the same settings is not done again: the same command
// goes on where it was stopped. At the end protein.md and plots. Models are kept in the folder too, for `oplus protein --similarity`.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { facts, oplus, require, root } from './machine.mjs';

const { lineChart } = require('../dist/plot.js');

const { values: options } = parseArgs({
	options: {
		fasta: {
			type: 'string',
			default: path.join(process.env.OPLUS_DATA ?? path.join(root, '..', 'shared', 'data'), 'protein', 'uniprot20k.fasta.gz'),
		},
		steps: { type: 'string' },
		seeds: { type: 'string', default: '1' },
		out: { type: 'string', default: path.join(root, 'oplus-out', 'bench-protein') },
		only: { type: 'string' },
		lengths: { type: 'string' },
		quick: { type: 'boolean', default: false },
		step: { type: 'string' }, // of the process that measures one step: mixer and length
	},
});
const { quick } = options;

/** What every model is made of. */
const sizes = quick
	? { dim: 32, layers: 1, heads: 2, hidden: 64, features: 16 }
	: { dim: 128, layers: 3, heads: 4, hidden: 512, features: 128 };
const training = {
	length: quick ? 64 : 256,
	batch: quick ? 4 : 16,
	steps: Number(options.steps ?? (quick ? 20 : 1500)),
	rate: 1e-3,
};
/** Windows of the test part: all, but for --quick. */
const most = quick ? 64 : Infinity;
const lengths = (options.lengths?.split(',') ?? (quick ? [256, 512] : [1024, 2048, 4096, 8192, 16384, 32768])).map(Number);

/** Accuracy in the paper's table 2, in percent: TrEMBL, 36 layers, L = 1024. Its table has no causal softmax-Performer. */
const paper = {
	causal: { 'performer-relu': 31.58, transformer: 30.8, unigram: 9.92 },
	masked: { 'performer-relu': 36.09, 'performer-softmax': 33.0, transformer: 33.32 },
};

const kinds = [
	{ kind: 'performer-relu', title: 'Performer (ReLU)', config: { mixer: 'performer', featureKind: 'relu' } },
	{ kind: 'performer-softmax', title: 'Performer (softmax)', config: { mixer: 'performer', featureKind: 'softmax' } },
	{ kind: 'transformer', title: 'Transformer', config: { mixer: 'attention' } },
];

if (options.step) {
	const [mixer, length] = options.step.split(',');
	console.log(JSON.stringify(await measureStep(mixer, Number(length))));
} else await main();

/** One training step over one sequence of concatenated proteins, in a process of its own, so that the peak is its own. */
async function measureStep(mixer, length) {
	const { train } = await oplus.readProteins(options.fasta);
	const model = oplus.proteinModel('causal', { ...sizes, mixer, featureKind: 'relu' });
	const optimizer = new oplus.AdamW(model.parameters(), { rate: 1e-3 });
	const windows = new oplus.ProteinWindows(train, { mode: 'causal', length, drawn: 2 });
	model.setTraining(true);
	let seconds = Infinity;
	for (const index of [0, 1]) {
		const started = performance.now();
		const { read } = oplus.scope(() => {
			const loss = model.loss(windows.batch([index]));
			loss.backward();
			optimizer.step();
			return { read: loss.read() };
		});
		await read;
		await oplus.synchronize();
		seconds = Math.min(seconds, (performance.now() - started) / 1000);
	}
	const { bytes, peakBytes } = oplus.memory();
	return { mixer, length, restBytes: bytes, peakBytes, seconds };
}

async function main() {
	const file = path.join(options.out, 'protein.json');
	const settings = { sizes, training, test: quick ? most : 'all', fasta: path.basename(options.fasta) };
	fs.mkdirSync(options.out, { recursive: true });
	let found = { settings, machine: facts(['node bench/protein.mjs', ...process.argv.slice(2)].join(' ')), models: [], memory: [] };
	if (fs.existsSync(file)) {
		const before = JSON.parse(fs.readFileSync(file, 'utf8'));
		if (JSON.stringify(before.settings) !== JSON.stringify(settings)) {
			console.error(`${file} was made with other settings, expected the same ones, or another --out`);
			process.exit(1);
		}
		found = { ...before, machine: found.machine };
	}
	// In place of the old file at once, so that a stop in between leaves the old one.
	const save = () => {
		fs.writeFileSync(`${file}.tmp`, `${JSON.stringify(found, null, '\t')}\n`);
		fs.renameSync(`${file}.tmp`, file);
	};
	const wanted = (name) => !options.only || name.includes(options.only);

	let parts;
	for (const mode of ['causal', 'masked']) {
		for (let seed = 0; seed < Number(options.seeds); seed++) {
			for (const { kind, title, config } of kinds) {
				const name = `${mode}-${kind}-seed${seed}`;
				if (!wanted(name) || found.models.some((model) => model.name === name)) continue;
				parts ??= await oplus.readProteins(options.fasta);
				found.models.push({ name, mode, kind, title, seed, ...(await one(parts, name, mode, config, seed)) });
				save();
			}
		}
	}
	for (const length of lengths) {
		for (const mixer of ['performer', 'attention']) {
			if (!wanted('memory') || found.memory.some((line) => line.mixer === mixer && line.length === length)) continue;
			const args = [
				fileURLToPath(import.meta.url),
				'--step',
				`${mixer},${length}`,
				'--fasta',
				options.fasta,
				...(quick ? ['--quick'] : []),
			];
			const line = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }));
			console.log(`step over ${length} tokens, ${mixer}: ${mebibytes(line.peakBytes)} MiB at most, ${line.seconds.toFixed(2)} s`);
			found.memory.push(line);
			save();
		}
	}
	found.memory.sort((a, b) => a.length - b.length);
	save();
	const text = markdown(found);
	fs.writeFileSync(path.join(options.out, 'protein.md'), text);
	if (found.memory.length > 0)
		for (const [name, svg] of Object.entries(await plots(found.memory))) fs.writeFileSync(path.join(options.out, name), svg);
	console.log(`\n${text}\n${path.relative(process.cwd(), file)}`);
}

async function one(parts, name, mode, config, seed) {
	const { length, batch, steps, rate } = training;
	const model = oplus.proteinModel(mode, { ...sizes, ...config, seed });
	const losses = [];
	let seconds = 0;
	for await (const progress of oplus.trainProtein(model, parts.train, { length, batch, steps, rate, seed })) {
		seconds = progress.seconds;
		if (progress.step % (10 * Math.ceil(steps / 150)) === 0) losses.push([progress.step, progress.loss]);
		if (progress.step % 100 === 0)
			console.log(`${name}: step ${progress.step}/${steps}, loss ${progress.loss.toFixed(4)}, ${seconds.toFixed(0)} s`);
	}
	// The same windows and the same hidden residues for every model and seed.
	const windows = new oplus.ProteinWindows(parts.test, { mode, length, seed: 0 });
	const score = await oplus.scoreWindows(model, windows, { counts: parts.train.counts, batch, most });
	await oplus.saveProtein(model, { length, counts: parts.train.counts }, path.join(options.out, name));
	console.log(
		`${name}: test perplexity ${score.perplexity.toFixed(3)}, accuracy ${(100 * score.accuracy).toFixed(2)} %, ${seconds.toFixed(0)} s`,
	);
	const { parameterCount: parameters } = model;
	model.dispose();
	return { ...score, parameters, seconds, losses };
}

function mebibytes(bytes) {
	return (bytes / 2 ** 20).toFixed(1);
}

function mean(values) {
	return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Mean and, of several, the standard deviation. */
function spread(values, digits) {
	const all = mean(values);
	if (values.length === 1) return all.toFixed(digits);
	const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - all) ** 2, 0) / (values.length - 1));
	return `${all.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
}

function markdown({ settings, machine, models, memory }) {
	const { length, batch, steps } = settings.training;
	const { dim, layers, heads, hidden, features } = settings.sizes;
	const lines = [
		`${layers} layers of width ${dim}, ${heads} heads, feed-forward width ${hidden}, ${features} features; ${steps} steps of ${batch} windows of ${length} tokens; ` +
			`figures of the test part (${settings.test} windows). ${machine.cpu}, commit ${machine.commit.slice(0, 12)}, ${machine.date.slice(0, 10)}.`,
		'',
	];
	for (const mode of ['causal', 'masked']) {
		const of = models.filter((model) => model.mode === mode);
		if (of.length === 0) continue;
		lines.push(
			`| ${mode} | perplexity | accuracy % | paper's accuracy % | parameters | seconds |`,
			'| --- | --- | --- | --- | --- | --- |',
			`| frequencies of residues | ${of[0].unigram.perplexity.toFixed(2)} | ${(100 * of[0].unigram.accuracy).toFixed(2)} | ${paper[mode].unigram ?? '–'} | – | – |`,
		);
		for (const { kind, title } of kinds) {
			const runs = of.filter((model) => model.kind === kind);
			if (runs.length === 0) continue;
			const accuracies = runs.map(({ accuracy }) => 100 * accuracy);
			const perplexities = runs.map(({ perplexity }) => perplexity);
			lines.push(
				`| ${title} | ${spread(perplexities, 3)} | ${spread(accuracies, 2)} | ${paper[mode][kind] ?? '–'} | ${runs[0].parameters} | ${mean(runs.map(({ seconds }) => seconds)).toFixed(0)} |`,
			);
		}
		lines.push('', ranking(mode, of), '');
	}
	if (memory.length > 0) {
		lines.push(
			'| tokens | Performer, MiB | s a step | Transformer, MiB | s a step | the scores that it does not keep, MiB |',
			'| --- | --- | --- | --- | --- | --- |',
		);
		for (const tokens of [...new Set(memory.map((line) => line.length))]) {
			const at = (mixer) => memory.find((line) => line.length === tokens && line.mixer === mixer);
			const cells = ['performer', 'attention'].flatMap((mixer) => {
				const line = at(mixer);
				return line ? [mebibytes(line.peakBytes), line.seconds.toFixed(2)] : ['–', '–'];
			});
			lines.push(`| ${tokens} | ${cells.join(' | ')} | ${mebibytes(scoresBytes(tokens))} |`);
		}
		const grows = (mixer, of) => {
			const [first, last] = [memory.find((line) => line.mixer === mixer), memory.findLast((line) => line.mixer === mixer)];
			return first && last && first !== last ? (Math.log(of(last) / of(first)) / Math.log(last.length / first.length)).toFixed(2) : '–';
		};
		const held = ({ peakBytes, restBytes }) => peakBytes - restBytes;
		const taken = ({ seconds }) => seconds;
		lines.push(
			'',
			`Peak of one training step over one sequence, causal, and the faster of two. From the shortest to the longest, what a step holds beside the parameters grows with length^${grows('performer', held)} ` +
				`(Performer) and length^${grows('attention', held)} (Transformer), time with length^${grows('performer', taken)} and length^${grows('attention', taken)}. ` +
				'The Transformer here works its scores out again in the backward pass; one that keeps them holds the last column as well, which is calculated: 4 · layers · heads · length² bytes.',
			'',
		);
	}
	return lines.join('\n');
}

/** What the order of accuracies is, and whether it is the paper's. */
function ranking(mode, models) {
	const order = (accuracy) =>
		kinds
			.filter(({ kind }) => accuracy(kind) !== undefined)
			.sort((a, b) => accuracy(b.kind) - accuracy(a.kind))
			.map(({ title }) => title);
	const ours = (kind) => {
		const runs = models.filter((model) => model.kind === kind && paper[mode][kind] !== undefined);
		return runs.length > 0 ? mean(runs.map(({ accuracy }) => accuracy)) : undefined;
	};
	const found = order(ours);
	const theirs = order((kind) => (ours(kind) === undefined ? undefined : paper[mode][kind]));
	if (found.length < 2) return '';
	const same = found.join() === theirs.join();
	return `By accuracy: ${found.join(' > ')}. ${same ? "This is the paper's order." : `The paper's order, ${theirs.join(' > ')}, is not found here.`}`;
}

/** Bytes of the weights of every layer and head, causal or not, where they are stored as whole squares. */
function scoresBytes(tokens) {
	return 4 * sizes.layers * sizes.heads * tokens ** 2;
}

async function plots(memory) {
	const points = (mixer, of) => memory.filter((line) => line.mixer === mixer).map((line) => [line.length, of(line)]);
	const megabytes = ({ peakBytes }) => peakBytes / 2 ** 20;
	const subtitle = `one sequence of concatenated proteins, ${sizes.layers} layers of width ${sizes.dim}, ${sizes.features} features`;
	const x = { title: 'tokens', log: true };
	return {
		'protein-memory.svg': await lineChart({
			title: 'Peak memory of a training step',
			subtitle,
			x,
			y: { title: 'MiB', log: true },
			lines: [
				{ name: 'Performer', points: points('performer', megabytes) },
				{ name: 'Transformer, scores worked out twice', points: points('attention', megabytes) },
				{
					name: 'Transformer that keeps its scores (calculated)',
					points: points('attention', (line) => (line.peakBytes + scoresBytes(line.length)) / 2 ** 20),
					dashed: true,
				},
			],
		}),
		'protein-time.svg': await lineChart({
			title: 'Time of a training step',
			subtitle,
			x,
			y: { title: 'seconds', log: true },
			lines: [
				{ name: 'Performer', points: points('performer', ({ seconds }) => seconds) },
				{ name: 'Transformer', points: points('attention', ({ seconds }) => seconds) },
			],
		}),
	};
}
