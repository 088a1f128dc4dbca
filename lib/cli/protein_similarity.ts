import path from 'node:path';
import { FormatError } from '../errors.js';
import type { FastaRecord } from '../io/fasta.js';
import { writeAtomic } from '../io/files.js';
import type { Performer } from '../models/performer.js';
import { type AttentionMap, AttentionTally, attentionOf, type HeadFigures } from '../models/protein_attention.js';
import { type AminoAcidMatrix, readBlosum } from '../models/protein_blosum.js';
import { correlateMatrices, type MatrixCorrelation } from '../models/protein_correlation.js';
import type { ProteinAbout } from '../models/protein_model.js';
import { encodeProtein, proteinTokens } from '../models/protein_tokens.js';
import type { ProteinOptions } from './protein.js';
import { type HeatMap, heatMaps } from './protein_plot.js';
import { wantedRecords } from './protein_score.js';
import type { Session } from './session.js';

/** As many sequences as the paper looked at. */
const someRecords = 800;

/** The shortest protein that is drawn if none is asked for. */
const drawnResidues = 60;

/** Tokens of a sequence that are looked at, at most: memory grows with their square. */
const mostTokens = 1024;

/** Squares on a side of an attention map: longer proteins have several tokens to a square. */
const squares = 64;

/** The order in which amino acids are drawn: alike ones stand together (sulphur, small, acids and amides, bases, aliphatic, aromatic). */
const drawnOrder = 'CSTPAGNDEQHRKMILVFYW';

/** A record whose attention was read. */
interface Example {
	readonly record: FastaRecord;
	readonly maps: readonly AttentionMap[];
}

/** `--similarity` */
export async function similarityReport(model: Performer, about: ProteinAbout, options: ProteinOptions, session: Session): Promise<void> {
	const { blosum: blosumFile, permutations, seed, out } = options;
	const blosum = blosumFile === undefined ? undefined : await readBlosum(blosumFile); // what is wrong with it is said before the work
	const tally = new AttentionTally(model.config.causal);
	const example = await readAttention(model, about, options, session, tally);
	const similarity = tally.similarity();
	const plain = tally.similarity('even');
	const against = (matrix: AminoAcidMatrix) => blosum && correlateMatrices(matrix, blosum, { permutations, seed });
	const [correlation, plainCorrelation] = [against(similarity), against(plain)];
	const files: Record<string, string> = { 'similarity.svg': await drawSimilarity(similarity, blosum, correlation, tally.sequences) };
	const heads = tally.heads();
	const chosen = chosenHeads(heads);
	files['attention.svg'] = await drawAttention(example, chosen);
	const letters = proteinTokens.letters.slice(0, proteinTokens.standard);
	const rows = (matrix: AminoAcidMatrix) => [...letters].map((_, i) => [...matrix.subarray(i * letters.length, (i + 1) * letters.length)]);
	const found = {
		...(correlation && correlation),
		letters,
		similarity: rows(similarity),
		plain: { ...(plainCorrelation && plainCorrelation), similarity: rows(plain) },
		sequences: tally.sequences,
		heads,
		chosen,
		protein: example.record.id,
	};
	files['similarity.json'] = `${JSON.stringify(found, null, '\t')}\n`;
	for (const [name, text] of Object.entries(files)) await writeAtomic(path.join(out, name), text);
	const said = ({ correlation, pairs, p }: MatrixCorrelation) =>
		`${correlation.toFixed(3)} over ${pairs} pairs, p = ${p.toPrecision(2)} (${permutations} permutations of the amino acids)`;
	const shown = [
		...(correlation ? [`Rank correlation with ${blosumFile}: ${said(correlation)}`] : []),
		...(plainCorrelation ? [`The same without allowing for amino acids that all look at: ${said(plainCorrelation)}`] : []),
	];
	session.result(
		{ ...found, files: Object.keys(files).map((name) => path.join(out, name)) },
		[
			`Attention of ${tally.sequences} sequences`,
			...shown,
			`Pairs that look at each other most: ${closest(similarity).join(', ')}`,
			`Plots and figures: ${Object.keys(files)
				.map((name) => path.join(out, name))
				.join(', ')}`,
		].join('\n'),
	);
}

/** Adds up attention over records, of each as much as a window holds, and keeps that of the one that is drawn. */
async function readAttention(
	model: Performer,
	about: ProteinAbout,
	options: ProteinOptions,
	session: Session,
	tally: AttentionTally,
): Promise<Example> {
	let example: Example | undefined;
	const room = Math.min(about.length, mostTokens) - 2;
	for await (const record of wantedRecords(options, session, someRecords)) {
		const residues = encodeProtein(record.sequence);
		const end = residues.length <= room ? [proteinTokens.end] : [];
		const ids = Int32Array.from([proteinTokens.begin, ...residues.subarray(0, room), ...end]);
		const maps = await attentionOf(model, ids);
		await new Promise(setImmediate); // lets Ctrl-C have its turn
		session.signal.throwIfAborted();
		tally.add(maps, ids);
		const fits = residues.length >= drawnResidues && residues.length <= room;
		const isAsked = options.protein === undefined ? fits : record.id.includes(options.protein);
		if (!example && isAsked) example = { record, maps };
	}
	if (example) return example;
	const wanted = options.protein === undefined ? `no protein of ${drawnResidues} to ${room} residues` : `no record ${options.protein}`;
	throw new FormatError(options.fasta, `found ${wanted} among the ${tally.sequences} that were read, expected one to draw`);
}

/** The pairs of two amino acids with the largest numbers. */
function closest(similarity: AminoAcidMatrix): string[] {
	const n = proteinTokens.standard;
	const pairs = [...similarity].flatMap((value, at) => {
		const [i, j] = [Math.floor(at / n), at % n];
		return i < j ? [{ value, name: `${proteinTokens.letters[i]}${proteinTokens.letters[j]} ${value.toFixed(2)}` }] : [];
	});
	return pairs
		.sort((a, b) => b.value - a.value)
		.slice(0, 5)
		.map(({ name }) => name);
}

/** Colours reach over the pairs of two amino acids: an amino acid with itself is beyond, and would leave the others one colour. */
function matrixMap(matrix: AminoAcidMatrix, title: string, legend: string): HeatMap {
	const n = proteinTokens.standard;
	const order = [...drawnOrder].map((letter) => proteinTokens.letters.indexOf(letter));
	const others = [...matrix].filter((_, at) => at % n !== Math.floor(at / n));
	return {
		title,
		legend,
		values: order.map((i) => order.map((j) => matrix[i * n + j]!)),
		labels: [...drawnOrder],
		range: [Math.min(...others), Math.max(...others)],
	};
}

function drawSimilarity(
	similarity: AminoAcidMatrix,
	blosum: AminoAcidMatrix | undefined,
	correlation: MatrixCorrelation | undefined,
	sequences: number,
): Promise<string> {
	const subtitle = `${sequences} sequences, all layers and heads`;
	return heatMaps({
		title: 'Which amino acids look at each other',
		subtitle: correlation
			? `${subtitle}; rank correlation ${correlation.correlation.toFixed(3)} over ${correlation.pairs} pairs, p = ${correlation.p.toPrecision(2)}`
			: subtitle,
		maps: [matrixMap(similarity, 'Attention', 'times as much as expected'), ...(blosum ? [matrixMap(blosum, 'BLOSUM62', 'score')] : [])],
	});
}

interface Chosen extends HeadFigures {
	readonly why: string;
}

/** The head that looks least far, the one that looks furthest, and the one whose tokens agree most on where to look. */
function chosenHeads(heads: readonly HeadFigures[]): Chosen[] {
	const best = (why: string, of: (figures: HeadFigures) => number): Chosen => ({ why, ...heads.reduce((a, b) => (of(b) > of(a) ? b : a)) });
	const chosen = [
		best('most local', ({ distance, evenDistance }) => -distance / evenDistance),
		best('furthest', ({ distance, evenDistance }) => distance / evenDistance),
		best('most global', ({ concentration }) => concentration),
	];
	return chosen.filter(({ layer, head }, i) => chosen.findIndex((each) => each.layer === layer && each.head === head) === i);
}

function drawAttention({ record, maps }: Example, chosen: readonly Chosen[]): Promise<string> {
	const T = Math.sqrt(maps[0]!.weights.length / maps[0]!.heads);
	const width = Math.ceil(T / squares);
	const side = Math.ceil(T / width);
	return heatMaps({
		title: `Attention of ${record.id}`,
		subtitle: `${T} tokens${width > 1 ? `, ${width} by ${width} to a square` : ''}; row: who looks, column: at whom`,
		side: 320,
		maps: chosen.map(({ layer, head, why, distance, evenDistance }) => {
			const { heads, weights } = maps[layer]!;
			const values = Array.from({ length: side }, () => new Array<number>(side).fill(0));
			for (let i = 0; i < T; i++) {
				const row = Math.floor(i / width);
				const rows = Math.min(width, T - row * width); // the last square may have fewer
				for (let j = 0; j < T; j++) values[row]![Math.floor(j / width)]! += weights[(i * heads + head) * T + j]! / rows;
			}
			const sorted = values.flat().sort((a, b) => a - b);
			return {
				title: `Layer ${layer + 1}, head ${head + 1}: ${why}`,
				x: `mean distance ${distance.toFixed(1)} (spread evenly: ${evenDistance.toFixed(1)})`,
				legend: 'weight',
				values,
				// One square in a hundred is beyond the colours, so that one weight near 1 does not leave the others dark.
				range: [0, Math.max(sorted[Math.floor(0.99 * sorted.length)]!, Number.MIN_VALUE)],
			};
		}),
	});
}
