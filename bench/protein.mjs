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
import { facts, oplus, root } from './machine.mjs';
import { kinds, markdown, mebibytes, plots } from './protein_report.mjs';

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
		for (const [name, svg] of Object.entries(await plots(found))) fs.writeFileSync(path.join(options.out, name), svg);
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
