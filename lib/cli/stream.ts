import { type Command, Option } from 'commander';
import { ArgumentError, FormatError } from '../errors.js';
import { readTable } from '../io/csv.js';
import { Forecaster } from '../models/forecaster.js';
import { replay } from '../models/replay.js';
import { partsOf, Series } from '../models/series.js';
import { loadModel } from '../train/save.js';
import { type CommonOptions, command, oneOf } from './session.js';

interface StreamOptions extends CommonOptions {
	readonly model: string;
	readonly data: string;
	readonly part: 'test' | 'all';
}

export function stream(): Command {
	return command<StreamOptions>('stream', 'Feed rows to a trained model one by one, as they would arrive.', async (options, session) => {
		const model = await loadModel(options.model, { device: options.device });
		using _ = model;
		if (!(model instanceof Forecaster)) throw new ArgumentError(`${options.model}: the model is a ${model.kind}, expected a forecaster`);
		const { columns, scale, calendar, split, horizon } = model.config;
		const table = await readTable(options.data, { columns, signal: session.signal });
		const series = new Series(table, scale, calendar);
		const part = options.part === 'all' ? ([0, table.rows] as const) : partsOf(table, split).test;
		if (part[1] - part[0] < horizon + 1) {
			throw new FormatError(
				options.data,
				`the series is too short: ${part[1] - part[0]} rows to stream, expected at least ${horizon + 1} for a horizon of ${horizon}`,
				{ line: table.rows + 1 },
			);
		}
		const found = await replay(model, { table, series }, part, {
			signal: session.signal,
			onProgress: (done) => session.progress('rows', done),
		});
		const micros = (seconds: number) => `${(seconds * 1e6).toFixed(0)} µs`;
		session.result(
			{ ...found, mixer: model.config.mixer, horizon },
			[
				`rows fed          ${found.steps}, ${columns.length} channels, ${horizon} rows predicted after each`,
				`MSE, MAE          ${found.mse.toFixed(4)}, ${found.mae.toFixed(4)} on scaled values (repeating the last value: ${found.repeatMse.toFixed(4)})`,
				`state             ${found.stateBytes} bytes after the last row, ${found.stateBytesAtStart} after the first`,
				`time a step       ${micros(found.secondsPerStep)} (first tenth ${micros(found.secondsPerStepAtStart)}, last tenth ${micros(found.secondsPerStepAtEnd)}, 99 % within ${micros(found.secondsPerStepP99)})`,
				`against parallel  largest difference ${found.maxDifference.toExponential(1)} of a standard deviation`,
			].join('\n'),
		);
	})
		.requiredOption('--model <folder>', 'a model that `oplus forecast` saved')
		.requiredOption('--data <file>', 'CSV with the columns that the model was trained on')
		.addOption(
			new Option('--part <name>', 'test: what the model was not trained on; all: every row')
				.default('test')
				.argParser(oneOf('test', 'all')),
		);
}
