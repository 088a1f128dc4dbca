/** What the scan promises on several threads: sequences in tiles, heads in parts, as near to the definition and always the same. */
import { expect, test } from 'vitest';
import { setThreads } from '../lib/device.js';
import { measure } from './checks.js';
import { apart, generator, largest, uniform, worst } from './harness.js';
import { subject } from './ops/scan.js';

test('threads: a long sequence of one head, cut in time, is as near to the definition', async () => {
	const sizes = { B: 1, T: 6000, H: 1, G: 1, D: 8 };
	const inputs = { s: uniform([1, 6000, 1], generator(1), 3), v: uniform([1, 6000, 1, 8], generator(2)) };
	try {
		setThreads(1);
		const { results: one } = await measure(subject, sizes, inputs, 'cpu');
		setThreads(2);
		const { results: two } = await measure(subject, sizes, inputs, 'cpu');
		const { results: again } = await measure(subject, sizes, inputs, 'cpu');
		expect(again).toEqual(two);
		for (const name of ['o', 'm', 'u', 'w']) expect(worst(two[name]!, one[name]!)).toBeLessThanOrEqual(apart(6000, largest(one[name]!)));
	} finally {
		setThreads(0);
	}
});

test('threads: more than there are processors take over each other’s tiles, and the bits stay', async () => {
	const sizes = { B: 1, T: 8192, H: 2, G: 2, D: 64 };
	const inputs = { s: uniform([1, 8192, 2], generator(1), 3), v: uniform([1, 8192, 2, 64], generator(2)) };
	const weights = { o: uniform([1, 8192, 2, 64], generator(3)).data as Float32Array };
	try {
		setThreads(2);
		const two = await measure(subject, sizes, inputs, 'cpu', weights);
		for (const threads of [3, 16, 64]) {
			setThreads(threads);
			for (let i = 0; i < 3; i++) {
				const more = await measure(subject, sizes, inputs, 'cpu', weights);
				for (const [name, values] of Object.entries(two.results)) expect(worst(more.results[name]!, values), name).toBe(0);
				for (const [name, values] of Object.entries(two.gradients)) expect(worst(more.gradients[name]!, values), `d${name}`).toBe(0);
			}
		}
	} finally {
		setThreads(0);
	}
});

test.each([
	[4, { B: 1, T: 5, H: 30, G: 15, D: 300 }],
	[16, { B: 1, T: 5, H: 30, G: 30, D: 300 }],
	[7, { B: 1, T: 20, H: 8, G: 8, D: 300 }],
	[8, { B: 3, T: 20, H: 12, G: 12, D: 100 }],
])('threads: %i share out heads unevenly', async (threads, sizes) => {
	const inputs = subject.inputs(sizes, generator(1));
	const weights = { o: uniform([sizes.B, sizes.T, sizes.H, sizes.D], generator(3)).data as Float32Array };
	try {
		setThreads(1);
		const one = await measure(subject, sizes, inputs, 'cpu', weights);
		setThreads(threads);
		const more = await measure(subject, sizes, inputs, 'cpu', weights);
		for (const [name, values] of Object.entries(one.results)) expect(worst(more.results[name]!, values), name).toBe(0);
		for (const name of ['s', 'v']) expect(worst(more.gradients[name]!, one.gradients[name]!), `d${name}`).toBe(0);
	} finally {
		setThreads(0);
	}
});

test('an early NaN stays through tiles, with its gradients', async () => {
	const sizes = { B: 1, T: 300, H: 1, G: 1, D: 520 };
	const inputs = subject.inputs(sizes, generator(1));
	inputs.s!.data[5] = NaN;
	const weights = { o: uniform([1, 300, 1, 520], generator(3)).data as Float32Array };
	try {
		for (const threads of [1, 2]) {
			setThreads(threads);
			const { results, gradients } = await measure(subject, sizes, inputs, 'cpu', weights);
			expect(results.m![0]).toBeNaN();
			for (const t of [5, 6, 150, 299]) {
				expect(results.o![t * 520]).toBeNaN();
				expect(gradients.v![t * 520], `dv at ${t}`).toBeNaN();
			}
			expect(results.o![4 * 520]).not.toBeNaN();
		}
	} finally {
		setThreads(0);
	}
});

test('threads: a gradient that comes through the final state alone goes through tiles', async () => {
	const sizes = { B: 1, T: 300, H: 1, G: 1, D: 520 };
	const inputs = subject.inputs(sizes, generator(1));
	const weights = { w: uniform([1, 1, 520], generator(3)).data as Float32Array };
	try {
		setThreads(1);
		const { gradients: one } = await measure(subject, sizes, inputs, 'cpu', weights);
		setThreads(2);
		const { gradients: two } = await measure(subject, sizes, inputs, 'cpu', weights);
		for (const name of ['s', 'v']) {
			expect(largest(one[name]!)).toBeGreaterThan(0);
			expect(worst(two[name]!, one[name]!), name).toBeLessThanOrEqual(apart(300, largest(one[name]!)));
		}
	} finally {
		setThreads(0);
	}
});
