import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Command, Option } from 'commander';
import { parseDate, readTable, type Table } from '../io/csv.js';
import { writeAtomic } from '../io/files.js';
import { type Trained, trainForecaster, windowsOf } from '../models/forecasting.js';
import { type Replay, replay } from '../models/replay.js';
import { type Score, score } from '../models/score.js';
import { lineChart } from '../plot.js';
import { htmlReport } from '../report.js';
import { saveModel } from '../train/save.js';
import { type CommonOptions, command, integer, type Session } from './session.js';

interface DemoOptions extends CommonOptions {
	readonly epochs: number;
	readonly out: string;
}

/** Eight weeks of days to look back on, one week to look ahead. */
const length = 56;
const horizon = 7;
const columns = ['temp_max', 'temp_min', 'precipitation', 'wind'];
const titles = ['Highest temperature, °C', 'Lowest temperature, °C', 'Precipitation, mm', 'Wind, m/s'];

export function demo(): Command {
	return command<DemoOptions>('demo', "Train on Seattle's weather, stream the rest day by day, and write a report to look at.", run)
		.addOption(new Option('--epochs <n>', 'times over the training part').default(8).argParser(integer(1)))
		.option('--out <folder>', 'where to write the report and the model', path.join('oplus-out', 'demo'));
}

/** Daily weather of Seattle, 2012 to 2015, from NOAA's records; it comes with the npm package vega-datasets. */
function dataFile(): string {
	const entry = createRequire(__filename).resolve('vega-datasets');
	return path.join(path.dirname(path.dirname(entry)), 'data', 'seattle-weather.csv');
}

/** What was predicted for the day after, beside what came. */
interface Ahead {
	readonly day: number;
	readonly predicted: Float32Array;
}

async function run(options: DemoOptions, session: Session): Promise<void> {
	const started = performance.now();
	const table = await readTable(dataFile(), { columns, signal: session.signal });
	session.log(`Seattle's weather: ${table.rows} days, ${columns.join(', ')}`);
	const losses: { step: number; loss: number }[] = [];
	const trained = await train(table, options, session, losses);
	using _ = trained.model;
	const test = await score(trained.model, windowsOf(trained.series, trained.parts.test, length, horizon, { device: options.device }), {
		signal: session.signal,
	});

	const ahead: Ahead[] = [];
	const streamed = await replay(trained.model, trained, trained.parts.test, {
		signal: session.signal,
		onProgress: (done) => session.progress('streaming', done),
		onPrediction: (row, predicted) => ahead.push({ day: row + 1, predicted }),
	});
	await saveModel(trained.model, path.join(options.out, 'model'));
	const seconds = (performance.now() - started) / 1000;
	const report = path.resolve(options.out, 'report.html');
	await writeAtomic(report, await page(trained, test, streamed, ahead, losses, seconds));
	const figures = {
		mse: test.mse,
		mae: test.mae,
		repeatMse: test.repeatMse,
		streamMse: streamed.mse,
		steps: streamed.steps,
		stateBytes: streamed.stateBytes,
		secondsPerStep: streamed.secondsPerStep,
		maxDifference: streamed.maxDifference,
		parameters: trained.model.parameterCount,
		epochs: options.epochs,
		seconds,
	};
	session.result(
		{ report, ...figures },
		[
			`${horizon} days ahead: MSE ${test.mse.toFixed(3)}, repeating today's weather ${test.repeatMse.toFixed(3)} (on scaled values)`,
			`${streamed.steps} days streamed: ${streamed.stateBytes} bytes of state, ${(streamed.secondsPerStep * 1e6).toFixed(0)} µs a day`,
			`${seconds.toFixed(1)} s in all. Report: ${report}`,
			`Open it in a browser: ${pathToFileURL(report)}`,
		].join('\n'),
	);
}

async function train(
	table: Table,
	{ epochs, seed, device }: DemoOptions,
	session: Session,
	losses: { step: number; loss: number }[],
): Promise<Trained> {
	const training = trainForecaster(table, { length, horizon, epochs, seed, device, dim: 32, signal: session.signal });
	let step = await training.next();
	for (; !step.done; step = await training.next()) {
		const { epoch, loss, validation, step: at, steps } = step.value;
		losses.push({ step: at, loss });
		session.progress('training', at / steps, `loss ${loss.toFixed(3)}`);
		if (validation) session.log(`epoch ${epoch}/${epochs}: loss ${loss.toFixed(3)}, validation MSE ${validation.mse.toFixed(3)}`);
	}
	session.log(`kept the weights of epoch ${step.value.bestEpoch}, the best on the validation part`);
	return step.value;
}

async function page(
	trained: Trained,
	test: Score,
	streamed: Replay,
	ahead: readonly Ahead[],
	losses: readonly { step: number; loss: number }[],
	seconds: number,
): Promise<string> {
	const { table, model } = trained;
	const time = (row: number) => parseDate(table.dates![row]!)!;
	const charts: string[] = [];
	for (const [c, title] of titles.entries()) {
		charts.push(
			await lineChart({
				title,
				subtitle: 'measured, and as predicted the day before',
				x: { title: 'date', date: true },
				y: { title, zero: false },
				lines: [
					{ name: 'measured', points: ahead.map(({ day }) => [time(day), table.columns[c]![day]!] as const) },
					{ name: 'predicted', points: ahead.map(({ day, predicted }) => [time(day), predicted[c * horizon]!] as const) },
				],
				height: 260,
			}),
		);
	}
	const learning = await lineChart({
		title: 'Training loss',
		x: { title: 'steps' },
		y: { title: 'mean squared error' },
		lines: [{ name: 'loss', points: losses.map(({ step, loss }) => [step, loss] as const) }],
		height: 220,
	});
	const number = (value: number) => value.toFixed(3);
	return htmlReport({
		title: 'Forecasting weather with a constant-memory model',
		lead: `An Aaren model of ${model.parameterCount.toLocaleString('en')} parameters learnt from ${trained.parts.train[1]} days of Seattle's weather and then watched the last ${trained.parts.test[1] - trained.parts.test[0]} days arrive one by one, predicting ${horizon} days ahead each time. All of it took ${seconds.toFixed(1)} seconds.`,
		sections: [
			{
				heading: 'How good the predictions are',
				text: [
					`Errors of all ${horizon} days ahead on days that the model was not trained on, in standard deviations of the training days. Rain and wind are hard to predict from their own past; temperatures are where the model gains.`,
				],
				table: {
					head: ['', 'mean squared error', 'mean absolute error'],
					rows: [
						[`each day from the last ${length} days alone`, number(test.mse), number(test.mae)],
						['streamed, remembering everything', number(streamed.mse), number(streamed.mae)],
						["repeating today's weather", number(test.repeatMse), '–'],
					],
				},
				charts,
			},
			{
				heading: 'What streaming costs',
				text: [
					'The state after any number of days has the same size, and the same predictions come out as when the whole series is given at once.',
				],
				table: {
					head: ['', ''],
					rows: [
						['state after the first day', `${streamed.stateBytesAtStart} bytes`],
						[`state after day ${streamed.steps}`, `${streamed.stateBytes} bytes`],
						['median time of a step', `${(streamed.secondsPerStep * 1e6).toFixed(0)} µs`],
						['largest difference to the parallel form', `${streamed.maxDifference.toExponential(1)} standard deviations`],
					],
				},
			},
			{ heading: 'How it learnt', charts: [learning] },
			{
				heading: 'Where the data come from',
				text: [
					"Daily records of Seattle, 2012 to 2015, from NOAA's National Climatic Data Center, as the npm package vega-datasets carries them (seattle-weather.csv).",
				],
			},
		],
	});
}
