import path from 'node:path';
import { type Command, Option } from 'commander';
import { writeAtomic } from '../io/files.js';
import { exponent, Growth, type GrowthPoint } from '../models/growth.js';
import { lineChart } from '../plot.js';
import { type CommonOptions, command, integer, type Session, table } from './session.js';

interface AnalyzeOptions extends CommonOptions {
	readonly tokens: number;
	readonly dim: number;
	readonly heads: number;
	readonly layers: number;
	readonly out: string;
}

/** Places on the curves: enough for a smooth line. */
const places = 64;

export function analyze(): Command {
	return command<AnalyzeOptions>(
		'analyze',
		'Memory and time against length: Aaren beside a Transformer with a key-value cache (figure 5 of the paper).',
		run,
	)
		.addOption(new Option('--tokens <n>', 'length of the stream').default(16_384).argParser(integer(places)))
		.addOption(new Option('--dim <n>', 'model width').default(128).argParser(integer(1)))
		.addOption(new Option('--heads <n>', 'attention heads').default(4).argParser(integer(1)))
		.addOption(new Option('--layers <n>', 'blocks').default(2).argParser(integer(1)))
		.option('--out <folder>', 'where to write the plots and analyze.json', path.join('oplus-out', 'analyze'));
}

async function run(options: AnalyzeOptions, session: Session): Promise<void> {
	session.log(`${options.tokens} tokens one by one: ${options.layers} blocks of width ${options.dim}, ${options.heads} heads`);
	using aaren = new Growth('aaren', options);
	using transformer = new Growth('attention', options);
	for (let place = 1; place <= places; place++) {
		const tokens = Math.floor((place * options.tokens) / places);
		// In turns, so that both meet the same state of the machine.
		await aaren.advance(tokens);
		await transformer.advance(tokens);
		// The Transformer's share grows with the square: so does the bar.
		session.progress('streaming', (place / places) ** 2, `${tokens} tokens`);
		await new Promise(setImmediate); // lets Ctrl-C have its turn
		session.signal.throwIfAborted();
	}
	const points = aaren.points.map(({ tokens, bytes, seconds, wallSeconds }, i) => {
		const other = transformer.points[i]!;
		return {
			tokens,
			aarenBytes: bytes,
			transformerBytes: other.bytes,
			aarenSeconds: seconds,
			transformerSeconds: other.seconds,
			aarenWallSeconds: wallSeconds,
			transformerWallSeconds: other.wallSeconds,
		};
	});
	// The last half: at first, what a step costs beside attention hides how attention grows.
	const late = points.slice(points.length / 2);
	const exponents = {
		aarenBytes: exponent(points.map((point) => [point.tokens, point.aarenBytes])),
		transformerBytes: exponent(points.map((point) => [point.tokens, point.transformerBytes])),
		aarenSeconds: exponent(late.map((point) => [point.tokens, point.aarenSeconds])),
		transformerSeconds: exponent(late.map((point) => [point.tokens, point.transformerSeconds])),
	};
	const { tokens, dim, heads, layers } = options;
	const found = {
		points,
		exponents,
		tokens,
		dim,
		heads,
		layers,
		device: options.device,
		aarenParameters: aaren.parameters,
		transformerParameters: transformer.parameters,
	};
	const files = await draw(aaren.points, transformer.points, options);
	const json = path.join(options.out, 'analyze.json');
	await writeAtomic(json, `${JSON.stringify(found, null, '\t')}\n`);
	const last = points.at(-1)!;
	const shown = table(
		['', 'parameters', 'state bytes', 'grows with tokens^', 'seconds in all', 'grows with tokens^'],
		[
			[
				'Aaren',
				`${aaren.parameters}`,
				`${last.aarenBytes}`,
				exponents.aarenBytes.toFixed(2),
				last.aarenSeconds.toFixed(2),
				exponents.aarenSeconds.toFixed(2),
			],
			[
				'Transformer',
				`${transformer.parameters}`,
				`${last.transformerBytes}`,
				exponents.transformerBytes.toFixed(2),
				last.transformerSeconds.toFixed(2),
				exponents.transformerSeconds.toFixed(2),
			],
		],
	);
	session.result(
		{ ...found, plots: files, file: json },
		`${shown}\nAfter ${last.tokens} tokens. Plots: ${files.join(', ')}; numbers: ${json}`,
	);
}

async function draw(
	aaren: readonly GrowthPoint[],
	transformer: readonly GrowthPoint[],
	{ out, dim, layers, tokens }: AnalyzeOptions,
): Promise<string[]> {
	const subtitle = `${layers} blocks of width ${dim}, ${tokens.toLocaleString('en')} tokens fed one by one`;
	const x = { title: 'tokens' };
	const curve = (points: readonly GrowthPoint[], of: (point: GrowthPoint) => number) =>
		points.map((point) => [point.tokens, of(point)] as const);
	const mebibytes = ({ bytes }: GrowthPoint) => bytes / 2 ** 20;
	const filled = ({ tokens }: GrowthPoint) => (8 * dim * layers * tokens) / 2 ** 20;
	const charts = {
		'memory.svg': await lineChart({
			title: 'Memory of the state',
			subtitle: `${subtitle}; the cache doubles when it is full`,
			x,
			y: { title: 'MiB' },
			lines: [
				{ name: 'Aaren', points: curve(aaren, mebibytes) },
				{ name: 'Transformer: key-value cache', points: curve(transformer, mebibytes) },
				{ name: 'of which filled', points: curve(transformer, filled), dashed: true },
			],
		}),
		'time.svg': await lineChart({
			title: 'Cumulative time',
			subtitle,
			x,
			y: { title: 'seconds' },
			lines: [
				{ name: 'Aaren', points: curve(aaren, ({ seconds }) => seconds) },
				{ name: 'Transformer with key-value cache', points: curve(transformer, ({ seconds }) => seconds) },
			],
		}),
	};
	const files: string[] = [];
	for (const [name, svg] of Object.entries(charts)) {
		const file = path.join(out, name);
		await writeAtomic(file, svg);
		files.push(file);
	}
	return files;
}
