import { FormatError } from '../errors.js';
import { type FastaRecord, readFasta } from '../io/fasta.js';
import type { Performer } from '../models/performer.js';
import { partOf } from '../models/protein_data.js';
import { modeOf, type ProteinAbout } from '../models/protein_model.js';
import { scoreProtein, streamProteins } from '../models/protein_score.js';
import { type ProteinScore, ProteinTally } from '../models/protein_tally.js';
import type { ProteinOptions } from './protein.js';
import { type Session, table } from './session.js';

/** A score for people, beside that of frequencies. */
export function shownScore(name: string, { perplexity, accuracy, residues, unigram }: ProteinScore): string {
	const row = (what: string, found: { perplexity: number; accuracy: number }) => [
		what,
		found.perplexity.toFixed(3),
		`${(100 * found.accuracy).toFixed(2)} %`,
	];
	const rows = [row(name, { perplexity, accuracy }), row('frequencies alone', unigram)];
	return `${table(['', 'perplexity', 'accuracy'], rows)}\nOver ${residues} residues.`;
}

/** Whether a record is in the part that is asked for. */
export function isWanted({ part }: ProteinOptions, id: string): boolean {
	return part === 'all' || partOf(id) === part;
}

/** The records that are asked for. @throws FormatError as `readFasta`, and where there are none */
export async function* wantedRecords(options: ProteinOptions, session: Session, most = Infinity): AsyncGenerator<FastaRecord, void> {
	const { fasta, part, records = most } = options;
	let found = 0;
	const onProgress = (done: number) => session.progress(fasta, done);
	for await (const record of readFasta(fasta, { signal: session.signal, onProgress })) {
		if (!isWanted(options, record.id)) continue;
		yield record;
		if (++found === records) return;
	}
	if (found === 0) throw new FormatError(fasta, `found no records of the ${part} part, expected at least one`);
}

/** One record's line. */
interface Line extends Omit<ProteinScore, 'nll' | 'unigram'> {
	readonly id: string;
	readonly stateBytes?: number;
}

function lineOf(id: string, tally: ProteinTally): Line {
	const { perplexity, accuracy, residues } = tally.score();
	return { id, perplexity, accuracy, residues };
}

function shownLines(lines: readonly Line[]): string {
	const rows = lines.map(({ id, perplexity, accuracy, residues }) => [
		id,
		perplexity.toFixed(3),
		`${(100 * accuracy).toFixed(2)} %`,
		`${residues}`,
	]);
	return table(['record', 'perplexity', 'accuracy', 'residues'], rows);
}

/** `--score` */
export async function scoreRecords(model: Performer, about: ProteinAbout, options: ProteinOptions, session: Session): Promise<void> {
	const { counts } = about;
	const { seed, context = about.length } = options;
	const all = new ProteinTally(counts);
	const lines: Line[] = [];
	const started = performance.now();
	let number = 0;
	for await (const record of wantedRecords(options, session)) {
		const { tally } = await scoreProtein(model, record, { counts, context, number: number++, seed, signal: session.signal });
		all.merge(tally);
		lines.push(lineOf(record.id, tally));
	}
	const seconds = (performance.now() - started) / 1000;
	const found = all.score();
	session.result(
		{ ...found, mode: modeOf(model), context, records: lines, seconds },
		`${shownLines(lines)}\n\n${shownScore(`${modeOf(model)}, windows of ${context} tokens`, found)}`,
	);
}

/** `--stream` */
export async function streamRecords(model: Performer, about: ProteinAbout, options: ProteinOptions, session: Session): Promise<void> {
	const { counts } = about;
	const { fasta, part, records = Infinity } = options;
	const all = new ProteinTally(counts);
	const lines: Line[] = [];
	let [stateBytes, seconds] = [0, 0];
	const streaming = streamProteins(model, fasta, {
		counts,
		wanted: (id) => isWanted(options, id),
		signal: session.signal,
		onProgress: (done) => session.progress(fasta, done),
	});
	for await (const { id, tally, ...cost } of streaming) {
		all.merge(tally);
		lines.push({ ...lineOf(id, tally), stateBytes: cost.stateBytes });
		stateBytes = Math.max(stateBytes, cost.stateBytes);
		seconds += cost.seconds;
		if (lines.length === records) break;
	}
	if (lines.length === 0) throw new FormatError(fasta, `found no records of the ${part} part, expected at least one`);
	const found = all.score();
	const secondsPerResidue = seconds / found.residues;
	session.result(
		{ ...found, stateBytes, secondsPerResidue, seconds, records: lines },
		[
			shownLines(lines),
			'',
			shownScore('residue by residue', found),
			`State: ${stateBytes} bytes, ${(1e6 * secondsPerResidue).toFixed(0)} µs a residue.`,
		].join('\n'),
	);
}
