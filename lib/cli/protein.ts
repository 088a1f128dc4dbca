import path from 'node:path';
import { type Command, Option } from 'commander';
import { ArgumentError } from '../errors.js';
import { type ProteinMode, ProteinWindows, readProteins } from '../models/protein_data.js';
import { loadProtein, type ProteinAbout, proteinModel, saveProtein, trainProtein } from '../models/protein_model.js';
import { scoreWindows } from '../models/protein_score.js';
import { type FavorKind, favorKinds } from '../ops/favor.js';
import { scoreRecords, shownScore, streamRecords } from './protein_score.js';
import { similarityReport } from './protein_similarity.js';
import { type CommonOptions, command, integer, number, oneOf, type Session } from './session.js';

export interface ProteinOptions extends CommonOptions {
	readonly fasta: string;
	readonly model?: string;
	readonly score: boolean;
	readonly stream: boolean;
	readonly similarity: boolean;
	readonly part: 'all' | 'train' | 'validation' | 'test';
	readonly records?: number;
	readonly context?: number;
	readonly blosum?: string;
	readonly permutations: number;
	readonly protein?: string;
	readonly mode: ProteinMode;
	readonly mixer: 'performer' | 'attention';
	readonly features: number;
	readonly kind: FavorKind;
	readonly redraw: number;
	readonly rope: boolean;
	readonly dim: number;
	readonly layers: number;
	readonly heads: number;
	readonly hidden?: number;
	readonly dropout: number;
	readonly length: number;
	readonly batch: number;
	readonly steps: number;
	readonly rate: number;
	readonly out: string;
}

export function protein(): Command {
	return command<ProteinOptions>(
		'protein',
		'Language models of proteins. Without --model: trains one on the records of a FASTA file whose hash says so (80 %), tests it on others ' +
			'(10 %), beside the frequencies of residues, and saves it. With --model, one of --score, --stream and --similarity.',
		run,
	)
		.requiredOption('--fasta <file>', 'proteins, plain or gzip')
		.option('--model <folder>', 'a model that this command has trained')
		.option('--score', 'with --model: perplexity and accuracy, of each record and of all', false)
		.addOption(
			new Option('--stream', 'with --model, causal: the same residue by residue, in constant memory, sequences of any length')
				.default(false)
				.conflicts(['score', 'similarity']),
		)
		.addOption(
			new Option('--similarity', 'with --model: which amino acids look at each other, as figures and plots')
				.default(false)
				.conflicts('score'),
		)
		.addOption(
			new Option('--part <name>', 'with --model: records of one part only, by the hash of their names')
				.default('all')
				.argParser(oneOf('all', 'train', 'validation', 'test')),
		)
		.addOption(new Option('--records <n>', 'with --model: no more records (default: all; 800 with --similarity)').argParser(integer(1)))
		.addOption(
			new Option('--context <n>', 'with --score: cut records into windows of so many tokens (default: as in training)').argParser(
				integer(4),
			),
		)
		.option('--blosum <file>', "with --similarity: NCBI's matrix BLOSUM62, to be compared with")
		.addOption(new Option('--permutations <n>', 'of amino acids, for the p-value').default(9999).argParser(integer(1)))
		.option(
			'--protein <name>',
			'with --similarity: whose attention is drawn (default: the first of 60 residues or more that a window holds whole)',
		)
		.addOption(
			new Option('--mode <name>', 'causal (the next residue) or masked (15 % hidden)')
				.default('causal')
				.argParser(oneOf('causal', 'masked')),
		)
		.addOption(
			new Option('--mixer <name>', 'performer, or attention: a Transformer')
				.default('performer')
				.argParser(oneOf('performer', 'attention')),
		)
		.addOption(new Option('--features <n>', 'random features of a query or key').default(128).argParser(integer(1)))
		.addOption(
			new Option('--kind <name>', `what the features stand for: ${favorKinds.join(', ')}`)
				.default('softmax')
				.argParser(oneOf(...favorKinds)),
		)
		.addOption(new Option('--redraw <n>', 'steps between two draws of the features; 0: one draw').default(1000).argParser(integer(0)))
		.option('--no-rope', 'without rotary positions')
		.addOption(new Option('--dim <n>', 'model width').default(128).argParser(integer(1)))
		.addOption(new Option('--layers <n>', 'blocks').default(3).argParser(integer(1)))
		.addOption(new Option('--heads <n>', 'attention heads').default(4).argParser(integer(1)))
		.addOption(new Option('--hidden <n>', 'width of the feed-forward part (default: 4 · dim)').argParser(integer(1)))
		.addOption(new Option('--dropout <share>', 'dropped in training').default(0).argParser(number(0, 0.99)))
		.addOption(new Option('--length <n>', 'tokens of a window').default(256).argParser(integer(4)))
		.addOption(new Option('--batch <n>', 'windows a step').default(16).argParser(integer(1)))
		.addOption(new Option('--steps <n>', 'steps of training').default(1500).argParser(integer(1)))
		.addOption(new Option('--rate <n>', 'learning rate at its highest').default(1e-3).argParser(number(0)))
		.option('--out <folder>', 'where to save the model, or the plots', path.join('oplus-out', 'protein'));
}

/** Windows that are validated on while training runs. */
const validationWindows = 64;

async function run(options: ProteinOptions, session: Session): Promise<void> {
	const { model: folder, score, stream, similarity } = options;
	const use = score ? scoreRecords : stream ? streamRecords : similarity ? similarityReport : undefined;
	if (!folder) {
		if (use) throw new ArgumentError('--score, --stream and --similarity without --model, expected the folder of a model');
		return train(options, session);
	}
	if (!use) throw new ArgumentError('--model alone, expected one of --score, --stream and --similarity with it');
	const { model, about } = await loadProtein(folder, { device: options.device });
	using _ = model;
	await use(model, about, options, session);
}

async function train(options: ProteinOptions, session: Session): Promise<void> {
	const { fasta, mode, mixer, kind, features, dim, layers, heads, length, batch, steps, rate, seed, out, device } = options;
	const { signal } = session;
	const parts = await readProteins(fasta, { signal, onProgress: (done) => session.progress('reading', done) });
	const { train: set, test } = parts;
	for (const [name, part] of Object.entries(parts)) {
		if (part.tokens.length <= length)
			throw new ArgumentError(`--length ${length}: the ${name} part of ${fasta} has ${part.tokens.length} tokens, expected more`);
	}
	const { redraw: redrawEvery, rope, hidden = 4 * dim, dropout } = options;
	const config = { dim, layers, heads, hidden, mixer, features, featureKind: kind, redrawEvery, rope, dropout, seed };
	using model = proteinModel(mode, config, { device });
	const counted = `${set.records} records to learn from (${set.residues} residues), ${parts.validation.records} to validate, ${test.records} to test`;
	session.log(`${fasta}: ${counted}`);
	const about: ProteinAbout = { length, counts: set.counts };
	const name = mixer === 'performer' ? `${mode} Performer (${kind}, ${features} features)` : `${mode} Transformer`;
	session.log(`${name}: ${model.parameterCount} parameters, ${steps} steps of ${batch} windows of ${length} tokens`);
	const validated = new ProteinWindows(parts.validation, { mode, length, seed });
	const every = 10 * Math.ceil(steps / 50);
	let seconds = 0;
	for await (const progress of trainProtein(model, set, { length, batch, steps, rate, seed, signal })) {
		const { step, loss } = progress;
		seconds = progress.seconds;
		session.progress(name, step / steps, `loss ${loss.toFixed(3)}`);
		if (step % every && step !== steps) continue;
		const found = await scoreWindows(model, validated, { counts: set.counts, batch, most: validationWindows, signal });
		session.log(
			`${name}: step ${step}/${steps}, loss ${loss.toFixed(4)}, validation perplexity ${found.perplexity.toFixed(3)}, ${seconds.toFixed(1)} s`,
		);
	}
	const windows = new ProteinWindows(test, { mode, length, seed });
	const onProgress = (done: number) => session.progress(`${name} test`, done);
	const found = await scoreWindows(model, windows, { counts: set.counts, batch, signal, onProgress });
	await saveProtein(model, about, out);
	session.result(
		{
			...found,
			mode,
			mixer,
			...(mixer === 'performer' && { kind, features }),
			parameters: model.parameterCount,
			steps,
			seconds,
			length,
			batch,
			seed,
			model: out,
		},
		`${shownScore(name, found)}\nModel: ${out}`,
	);
}
