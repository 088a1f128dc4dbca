import path from 'node:path';
import { type Command, Option } from 'commander';
import { readTable, type Table } from '../io/csv.js';
import type { MixerName } from '../layers/block.js';
import { trainForecaster, windowsOf } from '../models/forecasting.js';
import { score } from '../models/score.js';
import type { Split } from '../models/series.js';
import { saveModel } from '../train/save.js';
import { type CommonOptions, command, integer, list, number, oneOf, type Session, table } from './session.js';

interface ForecastOptions extends CommonOptions {
	readonly data: string;
	readonly columns?: string[];
	readonly length: number;
	readonly horizon: number[];
	readonly mixer: MixerName[];
	readonly split: Split;
	readonly seeds: number;
	readonly lags?: number;
	readonly dim: number;
	readonly heads: number;
	readonly layers: number;
	readonly dropout: number;
	readonly epochs: number;
	readonly batch: number;
	readonly rate: number;
	readonly out: string;
	readonly checkpoint?: string;
}

/** One training and its test. */
export interface Run {
	readonly mixer: MixerName;
	readonly horizon: number;
	readonly seed: number;
	readonly mse: number;
	readonly mae: number;
	/** Mean squared error of repeating the last value. */
	readonly repeatMse: number;
	readonly validationMse: number;
	readonly parameters: number;
	readonly epochs: number;
	readonly bestEpoch: number;
	readonly seconds: number;
	readonly model: string;
}

export function forecast(): Command {
	return command<ForecastOptions>('forecast', 'Train a model on the first part of a series, test it on the last, save it.', run)
		.requiredOption('--data <file>', 'CSV with a header; the first column may be a date')
		.option(
			'--columns <names>',
			'columns to use, with commas between (default: all but the date)',
			list((name) => name),
		)
		.addOption(new Option('--length <rows>', 'rows that the model is given').default(96).argParser(integer(4)))
		.addOption(
			new Option('--horizon <rows>', 'rows that it predicts; several with commas between').default([96], '96').argParser(list(integer(1))),
		)
		.addOption(
			new Option('--mixer <name>', 'aaren, performer or attention; several with commas between')
				.default(['aaren'], 'aaren')
				.argParser(list(oneOf('aaren', 'performer', 'attention'))),
		)
		.addOption(
			new Option('--split <name>', 'ratio (70, 10, 20 %) or ett (12, 4, 4 months)').default('ratio').argParser(oneOf('ratio', 'ett')),
		)
		.addOption(new Option('--seeds <n>', 'trainings of each kind, with --seed and the numbers after it').default(1).argParser(integer(1)))
		.addOption(new Option('--lags <rows>', 'values that a token is made of (default: 48, at most length / 2)').argParser(integer(2)))
		.addOption(new Option('--dim <n>', 'model width').default(64).argParser(integer(1)))
		.addOption(new Option('--heads <n>', 'attention heads').default(4).argParser(integer(1)))
		.addOption(new Option('--layers <n>', 'blocks').default(2).argParser(integer(1)))
		.addOption(new Option('--dropout <share>', 'dropped in training').default(0.2).argParser(number(0, 0.99)))
		.addOption(new Option('--epochs <n>', 'times over the training part').default(4).argParser(integer(1)))
		.addOption(new Option('--batch <n>', 'sequences a step').default(16).argParser(integer(1)))
		.addOption(new Option('--rate <n>', 'learning rate that the cosine starts from').default(3e-3).argParser(number(0)))
		.option('--out <folder>', 'where to save the model', path.join('oplus-out', 'forecast'))
		.option('--checkpoint <folder>', 'where to keep what is trained so far: the same command goes on from there');
}

/** Steps between two checkpoints: a crash loses so many at most, Ctrl-C none. */
const checkpointSteps = 20;

async function run(options: ForecastOptions, session: Session): Promise<void> {
	const data = await readTable(options.data, { columns: options.columns, signal: session.signal });
	const plans = options.horizon.flatMap((horizon) =>
		options.mixer.flatMap((mixer) => Array.from({ length: options.seeds }, (_, i) => ({ horizon, mixer, seed: options.seed + i }))),
	);
	session.log(`${options.data}: ${data.rows} rows, ${data.names.length} channels (${data.names.join(', ')})`);
	const runs: Run[] = [];
	for (const plan of plans) {
		const name = `${plan.mixer}-${plan.horizon}-seed${plan.seed}`;
		const out = plans.length > 1 ? path.join(options.out, name) : options.out;
		runs.push(await one(data, { ...options, ...plan, out }, name, session));
	}
	const kinds = [...new Set(runs.map(({ horizon, mixer }) => `${horizon} ${mixer}`))].map((kind) =>
		summary(runs.filter(({ horizon, mixer }) => kind === `${horizon} ${mixer}`)),
	);
	const shown = table(
		['mixer', 'horizon', 'MSE', 'MAE', 'repeat-last MSE', 'parameters', 'seconds'],
		kinds.map(({ mixer, horizon, mse, mae, mseSpread, repeatMse, parameters, seconds }) => [
			mixer,
			`${horizon}`,
			`${mse.toFixed(4)}${options.seeds > 1 ? ` ± ${mseSpread.toFixed(4)}` : ''}`,
			mae.toFixed(4),
			repeatMse.toFixed(4),
			`${parameters}`,
			seconds.toFixed(0),
		]),
	);
	const means = options.seeds > 1 ? `\nMeans of ${options.seeds} seeds; ± is the standard deviation.` : '';
	session.result({ ...(kinds.length === 1 && kinds[0]), table: kinds, runs }, `${shown}${means}\nModels: ${options.out}`);
}

function summary(runs: readonly Run[]) {
	const mean = (of: (run: Run) => number) => runs.reduce((sum, item) => sum + of(item), 0) / runs.length;
	const mse = mean((item) => item.mse);
	const { mixer, horizon, repeatMse, parameters, epochs } = runs[0]!;
	const mseSpread = Math.sqrt(mean((item) => (item.mse - mse) ** 2));
	return {
		mixer,
		horizon,
		mse,
		mseSpread,
		mae: mean((item) => item.mae),
		repeatMse,
		parameters,
		epochs,
		seconds: mean((item) => item.seconds),
		seeds: runs.length,
	};
}

async function one(
	data: Table,
	options: Omit<ForecastOptions, 'horizon' | 'mixer'> & { horizon: number; mixer: MixerName },
	name: string,
	session: Session,
): Promise<Run> {
	const { length, horizon, mixer, seed, device } = options;
	const { signal } = session;
	const checkpoint = options.checkpoint && {
		path: path.join(options.checkpoint, `${name}.safetensors`),
		every: checkpointSteps,
		onResume: (step: number, steps: number) => session.log(`${name}: goes on after step ${step} of ${steps}`),
	};
	const training = trainForecaster(data, { ...options, checkpoint: checkpoint || undefined, signal });
	let step = await training.next();
	for (; !step.done; step = await training.next()) {
		const { epoch, epochs, loss, seconds, validation } = step.value;
		session.progress(name, step.value.step / step.value.steps, `loss ${loss.toFixed(3)}`);
		if (validation)
			session.log(
				`${name}: epoch ${epoch}/${epochs}, loss ${loss.toFixed(4)}, validation MSE ${validation.mse.toFixed(4)}, ${seconds.toFixed(1)} s`,
			);
	}
	const { model, series, parts, bestEpoch, validation, seconds } = step.value;
	using _ = model;
	const test = await score(model, windowsOf(series, parts.test, length, horizon, { device }), {
		signal,
		onProgress: (done) => session.progress(`${name} test`, done),
	});
	await saveModel(model, options.out);
	session.log(
		`${name}: test MSE ${test.mse.toFixed(4)}, MAE ${test.mae.toFixed(4)} over ${test.windows} windows (repeating the last value: ${test.repeatMse.toFixed(4)})`,
	);
	return {
		mixer,
		horizon,
		seed,
		mse: test.mse,
		mae: test.mae,
		repeatMse: test.repeatMse,
		validationMse: validation.mse,
		parameters: model.parameterCount,
		epochs: options.epochs,
		bestEpoch,
		seconds,
		model: options.out,
	};
}
