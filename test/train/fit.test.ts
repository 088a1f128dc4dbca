import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { memory } from '../../lib/device.js';
import { FormatError } from '../../lib/errors.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { evaluate } from '../../lib/train/evaluate.js';
import { type FitOptions, fit, type Progress } from '../../lib/train/fit.js';
import { altered, temporary } from '../files.js';
import { chaos, linearError, Next, Series } from './model.js';

const values = chaos(16 * 60 + 1);
const data = new Series(values);
const options = { epochs: 2, batch: 8, rate: 5e-3, clip: 1, warmup: 3, schedule: 'cosine', seed: 7 } satisfies FitOptions;

async function weights(model: Next): Promise<Record<string, readonly number[]>> {
	const read = [...model.parameters()].map(async ([name, parameter]) => [name, [...(await parameter.read())]] as const);
	return Object.fromEntries(await Promise.all(read));
}

async function trained(more: Partial<FitOptions> = {}, model = new Next()): Promise<{ model: Next; reports: Progress[] }> {
	const reports: Progress[] = [];
	for await (const progress of fit(model, data, { ...options, ...more })) reports.push(progress);
	return { model, reports };
}

test('learns what no linear model can', async () => {
	const { model } = await trained({ epochs: 60 }, new Next(0, 0));
	const fresh = chaos(16 * 40 + 1, 3);
	const baseline = linearError(fresh);
	const { loss } = await evaluate(model, new Series(fresh));
	expect(baseline).toBeGreaterThan(0.6);
	expect(loss).toBeLessThan(baseline / 4);
});

test('reports every few steps and at the end of each epoch', async () => {
	const { reports } = await trained({ every: 3 });
	expect(reports.map(({ step }) => step)).toEqual([3, 6, 8, 9, 12, 15, 16]);
	expect(reports.filter(({ epochEnd }) => epochEnd).map(({ epoch, step }) => [epoch, step])).toEqual([
		[1, 8],
		[2, 16],
	]);
	for (const { loss, rate, seconds, steps, epochs } of reports) {
		expect(Number.isFinite(loss) && rate > 0 && rate <= 5e-3 && seconds > 0).toBe(true);
		expect([steps, epochs]).toEqual([16, 2]);
	}
});

test('the same seed gives the same bits; another seed does not', async () => {
	const first = await weights((await trained()).model);
	expect(await weights((await trained()).model)).toEqual(first);
	expect(await weights((await trained({ seed: 8 })).model)).not.toEqual(first);
});

test('every epoch takes every example once, each in another order', async () => {
	const taken: number[] = [];
	const watched = {
		length: data.length,
		batch(indices: readonly number[]) {
			taken.push(...indices);
			return data.batch(indices);
		},
	};
	for await (const _ of fit(new Next(), watched, options));
	const epochs = [taken.slice(0, data.length), taken.slice(data.length)];
	const all = Array.from({ length: data.length }, (_, i) => i);
	for (const epoch of epochs) {
		expect(epoch).not.toEqual(all);
		expect([...epoch].sort((a, b) => a - b)).toEqual(all);
	}
	expect(epochs[0]).not.toEqual(epochs[1]);
});

describe('leaving', () => {
	test('by an error of the data leaves a model that can be used', async () => {
		const model = new Next();
		const broken = {
			length: data.length,
			batch(indices: readonly number[]) {
				if (indices.length < 8) throw new Error('no such example');
				return data.batch(indices);
			},
		};
		const running = (async () => {
			for await (const _ of fit(model, broken, options));
		})();
		await expect(running).rejects.toThrow('no such example');
		expect([...model.modules()].some((module) => module.training)).toBe(false);
	});

	test('the loop leaves a model that can be used and trained on', async () => {
		const model = new Next();
		for await (const { step } of fit(model, data, { ...options, every: 1 })) if (step === 3) break;
		expect([...model.modules()].some((module) => module.training)).toBe(false);
		expect([...model.parameters().values()].some((parameter) => parameter.grad)).toBe(false);
		expect(Number.isFinite((await evaluate(model, data)).loss)).toBe(true);
		await trained({}, model);
	});

	test("by abort throws the signal's own reason", async () => {
		const reason = { any: 'thing' };
		const controller = new AbortController();
		const model = new Next();
		const running = (async () => {
			for await (const { step } of fit(model, data, { ...options, every: 1, signal: controller.signal }))
				if (step === 2) controller.abort(reason);
		})();
		await expect(running).rejects.toBe(reason);
		expect(Number.isFinite((await evaluate(model, data)).loss)).toBe(true);
		await expect(trained({ signal: controller.signal })).rejects.toBe(reason);
		await expect(evaluate(model, data, { signal: controller.signal })).rejects.toBe(reason);
	});

	test('frees everything but the parameters', async () => {
		const model = new Next();
		await trained({}, model);
		const before = memory().bytes;
		for (let i = 0; i < 3; i++) await trained({}, model);
		expect(memory().bytes).toBe(before);
	});
});

test('a loss that is no number stops the training and says where', async () => {
	await expect(trained({ rate: 1e30, clip: 0, epochs: 20 })).rejects.toThrow(/the loss is (NaN|Infinity|-Infinity) near step \d+/);
});

describe('checkpoints', () => {
	test('a training that was stopped goes on to the same bits', async () => {
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 3 };
		const whole = await weights((await trained()).model);
		for (const stop of [5, 8, 13]) {
			const model = new Next();
			for await (const { step } of fit(model, data, { ...options, every: 1, checkpoint })) if (step === stop) break;
		}
		const { model, reports } = await trained({ checkpoint, every: 1 });
		expect(reports[0]!.step).toBe(13); // written after step 12
		expect(await weights(model)).toEqual(whole);
		const done = await trained({ checkpoint });
		expect(done.reports).toEqual([]);
		expect(await weights(done.model)).toEqual(whole);
	});

	test('hold what the caller learnt by the report of their step', async () => {
		let seen = 0;
		const restored: unknown[] = [];
		const checkpoint = {
			path: path.join(await temporary(), 'check.safetensors'),
			every: 2,
			settings: { dim: 16 },
			keeper: {
				save: () => ({ note: { seen }, numbers: new Map([['seen', Float32Array.of(seen, 0.1)]]) }),
				restore: (kept: unknown) => restored.push(kept),
			},
			onResume: (step: number, steps: number) => restored.push([step, steps]),
		};
		for await (const { step } of fit(new Next(), data, { ...options, every: 1, checkpoint })) {
			seen = step;
			if (step === 5) break;
		}
		expect(restored).toEqual([]);
		await trained({ checkpoint });
		expect(restored).toEqual([{ note: { seen: 4 }, numbers: new Map([['seen', Float32Array.of(4, 0.1)]]) }, [4, 16]]);
		await expect(trained({ checkpoint: { ...checkpoint, settings: { dim: 8 } } })).rejects.toThrow('dim is 16, expected 8');
		await expect(trained({ checkpoint: { ...checkpoint, settings: {} } })).rejects.toThrow('dim is 16, expected nothing');
	});

	test('are written when the training is aborted, wherever it is', async () => {
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 100 };
		const whole = await weights((await trained()).model);
		const controller = new AbortController();
		const running = (async () => {
			for await (const { step } of fit(new Next(), data, { ...options, every: 1, checkpoint, signal: controller.signal }))
				if (step === 5) controller.abort('enough');
		})();
		await expect(running).rejects.toBe('enough');
		const { model, reports } = await trained({ checkpoint, every: 1 });
		expect(reports[0]!.step).toBe(6);
		expect(await weights(model)).toEqual(whole);
	});

	test('of another training are refused, and so are other files', async () => {
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 100 };
		await trained({ checkpoint });
		await expect(trained({ checkpoint, seed: 8 })).rejects.toThrow('seed is 7, expected 8');
		await expect(trained({ checkpoint, epochs: 3 })).rejects.toThrow('steps is 16, expected 24');
		await writeSafetensors(checkpoint.path, new Map());
		await expect(trained({ checkpoint })).rejects.toThrow(FormatError);
	});

	test.each([
		['no object', 'null', '`oplus.checkpoint` is null, expected a JSON object'],
		['a list', '[1]', '`oplus.checkpoint` is [1], expected a JSON object'],
		['no step', {}, '`step` is nothing, expected an integer in [0, 16]'],
		['a step as text', { step: '3' }, '`step` is "3", expected an integer in [0, 16]'],
		['half a step', { step: 2.5 }, '`step` is 2.5, expected an integer in [0, 16]'],
		['a step before the first', { step: -1 }, '`step` is -1, expected an integer in [0, 16]'],
		['a step after the last', { step: 17 }, '`step` is 17, expected an integer in [0, 16]'],
		['a seed as text', { seed: '7' }, 'seed is "7", expected 7'],
		['no note', { step: 16 }, '`note` is nothing, expected what the caller keeps'],
	])('whose header is damaged (%s) are refused', async (_, header, expected) => {
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 100 };
		await trained({ checkpoint });
		const text = typeof header === 'string' ? header : JSON.stringify({ seed: 7, steps: 16, batch: 8, ...header });
		await altered(checkpoint.path, (_, metadata) => {
			metadata['oplus.checkpoint'] = text;
		});
		const keeper = { save: () => ({ note: 0, numbers: new Map() }), restore: () => {} };
		const error = await trained({ checkpoint: { ...checkpoint, keeper } }).catch((reason: unknown) => reason);
		expect(error).toBeInstanceOf(FormatError);
		expect((error as FormatError).message).toContain(`${checkpoint.path}: `);
		expect((error as FormatError).message).toContain(expected);
	});

	test('tell text from the number that it looks like', async () => {
		const checkpoint = { path: path.join(await temporary(), 'check.safetensors'), every: 100 };
		await trained({ checkpoint: { ...checkpoint, settings: { dim: '16' } } });
		await expect(trained({ checkpoint: { ...checkpoint, settings: { dim: 16 } } })).rejects.toThrow('dim is "16", expected 16');
	});
});

test.each([
	['epochs', { epochs: 0 }],
	['batch', { batch: 1.5 }],
	['every', { every: -1 }],
	['seed', { seed: -1 }],
	['rate', { rate: Number.NaN }],
	['clip', { clip: -1 }],
	['warmup', { warmup: -1 }],
	['schedule', { schedule: 'steps' as never }],
])('wrong %s: an argument error that names it', async (name, wrong) => {
	await expect(trained(wrong)).rejects.toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringContaining(name) });
});
