// The figures of bench/protein.mjs as tables and plots, beside those of the Performer paper.
import { require } from './machine.mjs';

const { lineChart } = require('../dist/plot.js');

/** Accuracy in the paper's table 2, in percent: TrEMBL, 36 layers, L = 1024. Its table has no causal softmax-Performer. */
const paper = {
	causal: { 'performer-relu': 31.58, transformer: 30.8, unigram: 9.92 },
	masked: { 'performer-relu': 36.09, 'performer-softmax': 33.0, transformer: 33.32 },
};

/** Models that are compared. */
export const kinds = [
	{ kind: 'performer-relu', title: 'Performer (ReLU)', config: { mixer: 'performer', featureKind: 'relu' } },
	{ kind: 'performer-softmax', title: 'Performer (softmax)', config: { mixer: 'performer', featureKind: 'softmax' } },
	{ kind: 'transformer', title: 'Transformer', config: { mixer: 'attention' } },
];

export function mebibytes(bytes) {
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

/** All of it as tables. `memory` is in the order of lengths. */
export function markdown({ settings, machine, models, memory }) {
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
			lines.push(`| ${tokens} | ${cells.join(' | ')} | ${mebibytes(scoresBytes(settings.sizes, tokens))} |`);
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
function scoresBytes({ layers, heads }, tokens) {
	return 4 * layers * heads * tokens ** 2;
}

/** Memory and time of a training step over length, by the names of their files. */
export async function plots({ settings: { sizes }, memory }) {
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
					points: points('attention', (line) => (line.peakBytes + scoresBytes(sizes, line.length)) / 2 ** 20),
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
