import { expect, test } from 'vitest';
import { persist, tensor } from '../../lib/tensor.js';
import { AdamW } from '../../lib/train/adamw.js';
import { schedule, schedules } from '../../lib/train/schedule.js';

/** Algorithm 2 of Loshchilov & Hutter in plain numbers, with clipping by the norm of all gradients. */
function reference(p: number[][], g: number[][][], rate: number, decays: number[], clip: number): number[][] {
	const m = p.map((values) => values.map(() => 0));
	const v = p.map((values) => values.map(() => 0));
	g.forEach((step, t) => {
		const norm = Math.sqrt(step.flat().reduce((sum, value) => sum + value * value, 0));
		const factor = clip > 0 ? Math.min(1, clip / norm) : 1;
		p.forEach((values, k) => {
			values.forEach((old, i) => {
				const gradient = step[k]![i]! * factor;
				m[k]![i] = 0.9 * m[k]![i]! + 0.1 * gradient;
				v[k]![i] = 0.999 * v[k]![i]! + 0.001 * gradient ** 2;
				const update = m[k]![i]! / (1 - 0.9 ** (t + 1)) / (Math.sqrt(v[k]![i]! / (1 - 0.999 ** (t + 1))) + 1e-8);
				values[i] = old - rate * (update + decays[k]! * old);
			});
		});
	});
	return p;
}

test.each([0, 0.5, 100])('steps as the paper says, matrices decay and vectors do not, clip %d', async (clip) => {
	const start = [
		[1, -2, 3, -4],
		[0.5, -0.5],
	];
	const gradients = [
		[
			[0.1, -0.2, 0.3, 4],
			[1, 0],
		],
		[
			[-0.1, 0.5, 0.25, -3],
			[0.5, 0.25],
		],
		[
			[0.01, 0.02, 0.03, 0.04],
			[0.001, -2],
		],
	];
	const matrix = persist(tensor(start[0]!, [2, 2]));
	const vector = persist(tensor(start[1]!, [2]));
	using optimizer = new AdamW(
		new Map([
			['matrix', matrix],
			['vector', vector],
		]),
		{ rate: 0.1, decay: 0.1, clip },
	);
	for (const [a, b] of gradients) {
		matrix.grad = persist(tensor(a!, [2, 2]));
		vector.grad = persist(tensor(b!, [2]));
		optimizer.step();
		expect(matrix.grad).toBeNull();
	}
	const expected = reference(
		start.map((values) => [...values]),
		gradients,
		0.1,
		[0.1, 0],
		clip,
	);
	expect(optimizer.steps).toBe(3);
	expect([...(await matrix.read())]).toEqual(expected[0]!.map((value) => expect.closeTo(value, 5)));
	expect([...(await vector.read())]).toEqual(expected[1]!.map((value) => expect.closeTo(value, 5)));
	expect(matrix.version).toBe(3);
});

test('parameters without a gradient stay', async () => {
	const p = persist(tensor([1, 2], [2]));
	using optimizer = new AdamW(new Map([['p', p]]), { decay: 1 });
	optimizer.step();
	expect([...(await p.read())]).toEqual([1, 2]);
});

test('disposing frees the moments; a step afterwards is an error', () => {
	const p = persist(tensor([1, 2], [2]));
	const optimizer = new AdamW(new Map([['p', p]]));
	expect(optimizer.bytes).toBe(4 + 2 * 8);
	optimizer.dispose();
	optimizer.dispose();
	expect(optimizer.bytes).toBe(0);
	expect(() => optimizer.step()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
	expect(() => new AdamW(new Map())).toThrow('found no parameters');
});

test('schedules', () => {
	const at = (step: number, epoch = 0) => ({ step, steps: 100, epoch });
	expect(schedules.constant()).toBe(1);
	expect([0, 50, 100].map((step) => schedules.cosine(at(step)))).toEqual([1, expect.closeTo(0.5), 0]);
	expect([0, 25].map((step) => schedules.linear(at(step)))).toEqual([1, 0.75]);
	expect([0, 1, 3].map((epoch) => schedules.type1(at(0, epoch)))).toEqual([1, 0.5, 0.125]);
	expect([0, 1, 3, 4, 50].map((step) => schedule('constant', 4)(at(step)))).toEqual([0.25, 0.5, 1, 1, 1]);
	expect(schedule(({ step }) => step, 0)(at(5))).toBe(5);
});
