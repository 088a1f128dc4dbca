/**
 * How far off may a result be? As far as the definition itself is when a computer works it out: a description's reference is
 * plain loops that keep every number in arrays, and runs twice, with 64-bit arrays (taken as exact) and with 32-bit arrays (the
 * naive method). A result passes if its worst error is at most
 *
 *     2 × the worst error of the naive method + one rounding (2⁻²⁴) of the largest exact number.
 *
 * Nothing is tuned: a case where the naive method is bad allows more, and where it is exact, only the rounding of storing is
 * allowed. The naive method's error is the worst over several draws of inputs, more where there are few numbers, since the
 * error of few numbers may be small by luck; each draw's result is held against the same bound.
 *
 * Gradients are held to the same rule, against the gradient in plain loops. That one is itself checked against the forward
 * reference by central differences in 64 bits (`differences`), so that the chain ends at the definition.
 */
import { expect } from 'vitest';
import { binding } from '../lib/binding.js';
import type { DeviceName } from '../lib/device.js';
import * as ops from '../lib/ops/index.js';
import { scope, Tensor } from '../lib/tensor.js';
import {
	type Floats,
	generator,
	type Input,
	largest,
	mapValues,
	type Named,
	type Precision,
	rounding,
	type Sizes,
	type Subject,
	tensorsOf,
	worst,
} from './harness.js';

const exact: Precision = { zeros: (n) => new Float64Array(n), of: (values) => Float64Array.from(values) };
const naive: Precision = { zeros: (n) => new Float32Array(n), of: (values) => Float32Array.from(values) };

/** How often inputs are drawn for a case, so that even the smallest result or gradient is a hundred numbers: 3 to 12 times. */
function drawsFor(subject: Subject, sizes: Sizes): number {
	const inputs = subject.inputs(sizes, generator(1));
	const results = subject.reference(sizes, arraysOf(inputs, exact), exact);
	const counts = [...Object.values(results), ...Object.values(inputs).map(({ data }) => data)].map(({ length }) => length);
	return Math.max(3, Math.min(12, Math.ceil(100 / Math.min(...counts.filter((n) => n > 0)))));
}

function arraysOf(inputs: Named<Input>, precision: Precision): Record<string, Floats> {
	return mapValues(inputs, ({ data }) => (data instanceof Int32Array ? (data as unknown as Floats) : precision.of(data)));
}

/** Random numbers in the shape of each result that brings a gradient. */
function weights(subject: Subject, results: Named<Floats>, random: () => number): Record<string, Float32Array> {
	const differentiable = Object.entries(results).filter(([name]) => !subject.constants?.includes(name));
	return Object.fromEntries(differentiable.map(([name, { length }]) => [name, Float32Array.from({ length }, random)]));
}

/** What an operation gives for given inputs: results, and gradients of ∑ r · result if `r` is given. */
export async function measure(subject: Subject, sizes: Sizes, inputs: Named<Input>, device: DeviceName, r?: Named<Float32Array>) {
	const made = scope(() => {
		const tensors = tensorsOf(inputs, device, r !== undefined);
		const results = subject.run(tensors, sizes);
		if (r) {
			let loss: Tensor | undefined;
			for (const [name, weight] of Object.entries(r)) {
				const flat = ops.reshape(results[name]!, [weight.length]);
				const part = ops.sum(ops.mul(flat, Tensor.empty([weight.length], device, 'f32', weight)), 0);
				loss = loss ? ops.add(loss, part) : part;
			}
			loss!.backward();
		}
		const gradients: Record<string, Tensor> = {};
		for (const [name, { grad }] of Object.entries(tensors)) if (grad) gradients[name] = grad;
		return { results: { ...results }, gradients };
	});
	const read = async (tensors: Named<Tensor>) => {
		const arrays: Record<string, Float32Array> = {};
		for (const [name, tensor] of Object.entries(tensors)) arrays[name] = await tensor.read();
		return arrays;
	};
	const numbers = { results: await read(made.results), gradients: await read(made.gradients) };
	for (const tensor of [...Object.values(made.results), ...Object.values(made.gradients)]) tensor.dispose();
	return numbers;
}

interface Drawn {
	readonly inputs: Named<Input>;
	readonly exact: Named<Floats>;
	readonly naive: Named<Floats>;
}

/** Holds each draw's results against the exact ones, with the bound that the file begins with. */
function hold(what: string, found: readonly Named<Float32Array>[], drawn: readonly Drawn[], skip: readonly string[] = []): void {
	for (const name of Object.keys(drawn[0]!.exact).filter((each) => !skip.includes(each))) {
		const error = Math.max(...drawn.map((draw) => worst(draw.naive[name]!, draw.exact[name]!)));
		const scale = Math.max(...drawn.map((draw) => largest(draw.exact[name]!)));
		const bound = 2 * error + rounding * scale;
		found.forEach((numbers, i) => {
			expect(numbers[name], `${what} ${name}`).toBeDefined();
			expect(worst(numbers[name]!, drawn[i]!.exact[name]!), `error of ${what} \`${name}\`, draw ${i}; naive ${error}`).toBeLessThanOrEqual(
				bound,
			);
		});
	}
}

function draw(subject: Subject, sizes: Sizes): Drawn[] {
	return Array.from({ length: drawsFor(subject, sizes) }, (_, i) => {
		const inputs = subject.inputs(sizes, generator(1 + i));
		return {
			inputs,
			exact: subject.reference(sizes, arraysOf(inputs, exact), exact),
			naive: subject.reference(sizes, arraysOf(inputs, naive), naive),
		};
	});
}

/** (a) Results are no further from the exact answer than twice the naive method, and have the shape of the reference. */
export async function checkForward(subject: Subject, sizes: Sizes, device: DeviceName): Promise<void> {
	const drawn = draw(subject, sizes);
	const found: Named<Float32Array>[] = [];
	for (const { inputs } of drawn) found.push((await measure(subject, sizes, inputs, device)).results);
	hold('result', found, drawn);
}

/** (b) Gradients, of every input that has one. */
export async function checkGradient(subject: Subject, sizes: Sizes, device: DeviceName): Promise<void> {
	const found: Named<Float32Array>[] = [];
	const drawn: Drawn[] = [];
	for (const { inputs, exact: results } of draw(subject, sizes)) {
		const r = weights(subject, results, generator(77));
		drawn.push({
			inputs,
			exact: subject.gradient!(sizes, arraysOf(inputs, exact), mapValues(r, exact.of), exact),
			naive: subject.gradient!(sizes, arraysOf(inputs, naive), mapValues(r, naive.of), naive),
		});
		found.push((await measure(subject, sizes, inputs, device, r)).gradients);
	}
	const wanted = Object.entries(drawn[0]!.inputs).filter(
		([, { data, differentiable = true }]) => differentiable && data instanceof Float32Array,
	);
	expect(Object.keys(found[0]!).sort()).toEqual(wanted.map(([name]) => name).sort());
	expect(Object.keys(drawn[0]!.exact).sort()).toEqual(wanted.map(([name]) => name).sort());
	hold('gradient of', found, drawn);
}

/**
 * The gradient in plain loops against central differences of the reference, both in 64 bits: D(h) = (8 (f(h) − f(−h)) −
 * (f(2h) − f(−2h))) / 12h, whose error is O(h⁴). Two parts make its error: leaving terms out, which |D(h) − D(2h)| is larger
 * than; and rounding, at most 1.5/h times that of a loss: what the naive method loses in 32 bits, 2²⁹ times smaller.
 */
export function checkDifferences(subject: Subject, sizes: Sizes): void {
	const inputs = subject.inputs(sizes, generator(1));
	const at = arraysOf(inputs, exact);
	const held = subject.reference(sizes, at, exact);
	const rough = subject.reference(sizes, arraysOf(inputs, naive), naive);
	const r = weights(subject, held, generator(77));
	const loss = () => {
		const results = subject.reference(sizes, at, exact, held);
		let total = 0;
		for (const [name, weight] of Object.entries(r)) for (let i = 0; i < weight.length; i++) total += weight[i]! * results[name]![i]!;
		return total;
	};
	let lost = 0; // of a loss, in 64 bits
	for (const [name, weight] of Object.entries(r)) {
		for (let i = 0; i < weight.length; i++) {
			const size = Math.abs(weight[i]! * held[name]![i]!);
			lost += 2 ** -29 * Math.abs(weight[i]!) * worst([rough[name]![i]!], [held[name]![i]!]) + 2 ** -52 * size;
		}
	}
	const gradients = subject.gradient!(sizes, at, mapValues(r, exact.of), exact);
	const random = generator(5);
	const h = 2 ** -9;
	for (const [name, gradient] of Object.entries(gradients)) {
		const x = at[name]!;
		for (let tried = 0; tried < Math.min(24, x.length); tried++) {
			const i = x.length <= 24 ? tried : Math.floor(((random() + 1) / 2) * x.length);
			const before = x[i]!;
			if (!Number.isFinite(before)) continue; // −∞ stays −∞, NaN is not looked at: nothing to differentiate
			const central = (step: number) => {
				x[i] = before + step;
				const ahead = loss();
				x[i] = before - step;
				const behind = loss();
				x[i] = before;
				return (ahead - behind) / (2 * step);
			};
			const [d1, d2, d4] = [central(h), central(2 * h), central(4 * h)];
			const fine = (4 * d1 - d2) / 3;
			const coarse = (4 * d2 - d4) / 3;
			const bound = Math.abs(fine - coarse) + ((1.5 * lost) / h) * 2;
			expect(Math.abs(gradient[i]! - fine), `d${name}[${i}] is ${gradient[i]}, by differences ${fine}`).toBeLessThanOrEqual(bound);
		}
	}
}

/** (c) The same to the bit: twice, and with one and two threads. */
export async function checkRepeats(subject: Subject, sizes: Sizes, device: DeviceName): Promise<void> {
	const inputs = subject.inputs(sizes, generator(1));
	const results = subject.reference(sizes, arraysOf(inputs, exact), exact);
	const r = subject.gradient ? weights(subject, results, generator(77)) : undefined;
	const bits = async () => {
		const { results: y, gradients } = await measure(subject, sizes, inputs, device, r);
		return mapValues({ ...y, ...mapValues(gradients, (g) => g) }, (x) =>
			Buffer.from(x.buffer, x.byteOffset, x.byteLength).toString('base64'),
		);
	};
	try {
		const byThreads = [];
		for (const threads of [1, 2]) {
			binding.setThreads(threads);
			const once = await bits();
			const again = await bits();
			expect(again).toEqual(once);
			byThreads.push(once);
		}
		if (!subject.threadsMatter?.(sizes)) expect(byThreads[1]).toEqual(byThreads[0]);
	} finally {
		binding.setThreads(0);
	}
}
