import { noGrad } from '../autograd.js';
import { binding } from '../binding.js';
import type { DeviceName } from '../device.js';
import { dims } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { type MixerName, Stack } from '../layers/block.js';
import { LayerNorm } from '../layers/layer_norm.js';
import { Linear } from '../layers/linear.js';
import { Module } from '../layers/module.js';
import { State } from '../layers/state.js';
import { add, concat, mul, reshape, slice } from '../ops/elementwise.js';
import { layerNorm } from '../ops/layer_norm.js';
import { linear } from '../ops/linear.js';
import { meanSquaredError } from '../ops/loss.js';
import { Random } from '../random.js';
import { persist, scope, Tensor, tensor } from '../tensor.js';
import type { Batch } from '../train/fit.js';
import { registerModel } from '../train/save.js';
import { type Calendar, calendarWidth, type Scale, type Split } from './series.js';

export interface ForecasterConfig {
	/** Rows predicted after each row. */
	readonly horizon: number;
	/** Values that a token is made of: the row's own and those before it. @default 48 */
	readonly lags?: number;
	/** @default 'aaren' */
	readonly mixer?: MixerName;
	/** Model width. @default 64 */
	readonly dim?: number;
	/** @default 4 */
	readonly heads?: number;
	/** @default 2 */
	readonly layers?: number;
	/** Width of the feed-forward part. @default 2 · dim */
	readonly hidden?: number;
	/** @default 0.2 */
	readonly dropout?: number;
	/** What dates add to a token. @default nothing */
	readonly calendar?: readonly Calendar[];
	/** Names of the channels. */
	readonly columns: readonly string[];
	/** Of the training rows: the model works on scaled numbers. */
	readonly scale: Scale;
	/** Rows that the model is given when it is tested. */
	readonly context: number;
	/** How the file that it was trained on was divided. @default 'ratio' */
	readonly split?: Split;
}

/** Deviations below this (in those of the training rows) are taken for noise and not blown up. */
const smallest = 0.1;

const defaults = { lags: 48, mixer: 'aaren', dim: 64, heads: 4, layers: 2, dropout: 0.2, calendar: [], split: 'ratio' } as const;

/**
 * Forecasts a multivariate series, at every row, from the rows up to it.
 *
 * Every channel is a sequence of its own and all share the weights: with a few thousand rows, weights that mix channels learn
 * the training part's accidents, and a model of single channels also runs on files with other columns (Nie et al. 2023,
 * "A Time Series is Worth 64 Words", section 3.1).
 *
 * A token is the last `lags` values of the channel, less their mean and divided by their deviation, and waves of the calendar;
 * before the first row, the first value is taken to have stood. What is predicted is in the same measure and is brought back.
 * This is the input normalisation of Liu et al. 2022 ("Non-stationary Transformers", section 3.1), over the token's own past so
 * that it is causal: a channel that drifts away from where it was in training looks the same. A token knows its near past, and
 * the mixer adds what lies further back. No position is encoded: the stream may be of any length.
 *
 * The model is causal, so it learns from all tokens of a window at once, and can be fed row by row.
 */
export class Forecaster extends Module {
	readonly kind = 'forecaster';
	readonly config: Required<Omit<ForecasterConfig, 'hidden'>> & Pick<ForecasterConfig, 'hidden'>;
	readonly #embed: Linear;
	readonly #stack: Stack;
	readonly #norm: LayerNorm;
	readonly #head: Linear;
	/** `[lags]` and `[1, lags]`: what normalisation and means are made with. */
	readonly #constants: { readonly one: Tensor; readonly zero: Tensor; readonly mean: Tensor };

	/** @param options.seed of the first weights @default 0 */
	constructor(config: ForecasterConfig, options: { readonly seed?: number; readonly device?: DeviceName } = {}) {
		super();
		this.config = { ...defaults, ...config };
		const { lags, dim, heads, layers, horizon, mixer, dropout, calendar, hidden = 2 * dim } = this.config;
		for (const [name, value] of Object.entries({ horizon, lags, layers })) {
			const least = name === 'lags' ? 2 : 1;
			if (!Number.isInteger(value) || value < least)
				throw new ArgumentError(`Forecaster: ${name} is ${value}, expected an integer from ${least}`);
		}
		const place = { random: new Random(options.seed ?? 0), device: options.device ?? 'cpu' };
		this.#embed = this.part('embed', new Linear(lags + calendarWidth(calendar), dim, place));
		this.#stack = this.part('stack', new Stack(layers, { dim, heads, hidden, mixer, dropout, norm: 'pre', ...place }));
		this.#norm = this.part('norm', new LayerNorm(dim, place));
		this.#head = this.part('head', new Linear(dim, horizon, place));
		const same = (value: number, shape: number[]) => persist(tensor(new Float32Array(lags).fill(value), shape, { device: place.device }));
		this.#constants = { one: same(1, [lags]), zero: same(0, [lags]), mean: same(1 / lags, [1, lags]) };
	}

	/** Numbers a row and channel: its value and the calendar's. */
	get width(): number {
		return 1 + calendarWidth(this.config.calendar);
	}

	/** What a stream keeps: the last values and the mixers' states. @param options.batch sequences: one a channel */
	initialState({ batch = this.config.columns.length }: { readonly batch?: number } = {}): State {
		const history = tensor(new Float32Array(batch * (this.config.lags - 1)), [batch, this.config.lags - 1], { device: this.device });
		return new State('forecaster', batch, { history }, [this.#stack.initialState({ batch })]);
	}

	/**
	 * @param x `[B, T, width]` scaled values and calendar features of B sequences (channels)
	 * @param state what came before; moved on @default nothing came before
	 * @param options.last only the last token's predictions are wanted: T becomes 1 in the result
	 * @returns `[B, T, horizon]` scaled values: row t knows rows up to t
	 */
	forward(x: Tensor, state?: State, options: { readonly last?: boolean } = {}): Tensor {
		this.check();
		if (!state || this.training) return this.#run(x, state, options.last ?? false);
		return noGrad(() => scope(() => this.#run(x, state, options.last ?? false)));
	}

	/** The mean squared error of all tokens' predictions. */
	loss({ x, y }: Batch): Tensor {
		return meanSquaredError(this.forward(x), unfold(y, this.config.horizon));
	}

	#run(x: Tensor, state: State | undefined, last: boolean): Tensor {
		const { T, W } = dims('Forecaster.forward', { x: [x, 'B T W'] });
		if (W !== this.width) throw new ArgumentError(`Forecaster.forward: x has ${W} numbers a row, expected ${this.width}`);
		const values = slice(x, -1, 0, 1);
		const windows = unfold(this.#withHistory(values, state), this.config.lags);
		const { one, zero, mean } = this.#constants;
		const normal = layerNorm(windows, one, zero, { epsilon: smallest ** 2 });
		const tokens = W > 1 ? concat([normal, slice(x, -1, 1, W)], -1) : normal;
		const mixed = this.#stack.forward(this.#embed.forward(tokens), state?.parts[0]);
		const wanted = (all: Tensor) => (last ? slice(all, 1, T - 1, T) : all);
		const predicted = this.#head.forward(this.#norm.forward(wanted(mixed)));
		// Σ x·(x − mean)/σ = lags · σ: the deviation that layerNorm divided by.
		const deviation = linear(mul(wanted(windows), wanted(normal)), mean);
		const level = linear(wanted(windows), mean);
		return add(mul(predicted, repeat(deviation, this.config.horizon)), repeat(level, this.config.horizon));
	}

	/** `[B, T, 1]` → `[B, lags − 1 + T]`: the values and those before them. */
	#withHistory(values: Tensor, state: State | undefined): Tensor {
		const { B, T } = dims('Forecaster.forward', { x: [values, 'B T 1'] });
		const before = this.config.lags - 1;
		const flat = reshape(values, [B, T]);
		state?.expect('Forecaster.forward', 'forecaster', B);
		const history = state && state.length > 0 ? state.get('history') : repeat(slice(flat, 1, 0, 1), before);
		const all = concat([history, flat], 1);
		state?.set('history', slice(all, 1, T, T + before));
		if (state) state.length += T;
		return all;
	}

	override dispose(): void {
		for (const constant of Object.values(this.#constants)) constant.dispose();
		super.dispose();
	}
}

/** `[…, 1]` → `[…, n]` */
function repeat(x: Tensor, n: number): Tensor {
	return linear(x, tensor(new Float32Array(n).fill(1), [n, 1], { device: x.device }));
}

/** Every run of `width` numbers: `[B, N]` → `[B, N − width + 1, width]`. For data: no gradient flows back. */
function unfold(x: Tensor, width: number): Tensor {
	const { B, N } = dims('unfold', { x: [x, 'B N'] });
	const rows = N - width + 1;
	if (rows === 1) return x.view([B, 1, width]);
	const y = Tensor.empty([B, rows, width], x.device);
	for (let b = 0; b < B; b++) binding.copyBlock(x.buffer, y.buffer, rows, width, 1, b * N, width, b * rows * width);
	return y;
}

registerModel('forecaster', (config: ForecasterConfig, options) => new Forecaster(config, options));
