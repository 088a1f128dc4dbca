/**
 * Linear attention may be cut anywhere: whole, in pieces and token by token it is as near to the definition as the naive method is,
 * by the rule that test/checks.ts begins with, and so are gradients that pass through the states between pieces.
 */
import { describe, expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { type DeviceName, devices } from '../../lib/device.js';
import { type FeatureMap, favor, favorKinds } from '../../lib/ops/favor.js';
import * as ops from '../../lib/ops/index.js';
import { type FavorState, linearAttention } from '../../lib/ops/linear_attention.js';
import { type Tensor, tensor } from '../../lib/tensor.js';
import { type Floats, generator, isSlow, largest, mapValues, type Precision, rounding, tensorsOf, title, worst } from '../harness.js';
import { subject } from '../ops/linear_attention.js';

const exact: Precision = { zeros: (n) => new Float64Array(n), of: (values) => Float64Array.from(values) };
const naive: Precision = { zeros: (n) => new Float32Array(n), of: (values) => Float32Array.from(values) };
/** As many draws of the inputs as make enough numbers to know the naive method's error by: small problems have few. */
const drawsFor = ({ T }: { T: number }) => (T < 40 ? 12 : 3);

const kind = (name: (typeof favorKinds)[number]) => favorKinds.indexOf(name);
const base = { B: 2, T: 77, H: 4, G: 2, D: 5, E: 7, M: 20, kind: 0, causal: 1, epsilon: 1 };
type Case = typeof base & Record<string, number>;
const cases: readonly Case[] = [
	base,
	{ ...base, H: 2, D: 16, E: 33, M: 24, hard: 1 },
	{ ...base, state: 1, lengths: 1 },
	{ ...base, kind: kind('hyperbolic'), state: 1 },
	{ ...base, kind: kind('regularised'), lengths: 1 },
	{ ...base, kind: kind('relu'), epsilon: 1000, state: 1 },
	{ ...base, kind: kind('elu'), epsilon: 1000, gentle: 1 },
	{ ...base, kind: kind('trigonometric'), epsilon: 0, gentle: 1 },
];

const random = generator(3);

/** Where to cut: at 0 and T, and between them. */
function waysToCut(T: number): number[][] {
	const every = (n: number) => [...Array.from({ length: Math.ceil(T / n) }, (_, i) => i * n), T];
	const anywhere = () => [0, ...Array.from({ length: T - 1 }, (_, i) => i + 1).filter(() => random() > 0.6), T];
	// Up to 8 tokens go one way, more another; chunks are 32 long.
	const mixed = [0, 1, 9, 18, 50, 58, 59, 68, T].filter((t) => t <= T);
	return [[0, T], every(1), every(8), every(9), every(32), mixed, anywhere(), anywhere()];
}

interface Made {
	readonly o: Tensor;
	readonly state: FavorState;
}

function inPieces(
	tensors: Record<string, Tensor>,
	lengths: readonly number[] | undefined,
	cuts: readonly number[],
	features: FeatureMap,
	inPlace = false,
): Made {
	const { q, k, v, c0, z0, S0 } = tensors;
	const parts: Tensor[] = [];
	let state: FavorState | undefined = c0 && { c: c0, z: z0!, S: S0! };
	for (let i = 0; i + 1 < cuts.length; i++) {
		const [from, to] = [cuts[i]!, cuts[i + 1]!];
		const [a, b, d] = [q!, k!, v!].map((each) => ops.slice(each, 1, from, to));
		const here =
			lengths &&
			ops.lengths(
				lengths.map((length) => Math.max(0, Math.min(to, length) - from)),
				q!.device,
			);
		const mine = inPlace && i > 0;
		const step = linearAttention(a!, b!, d!, { features, causal: true, state, lengths: here, inPlace: mine });
		if (mine) expect(step.state).toBe(state);
		state = step.state;
		parts.push(step.o);
	}
	return { o: ops.concat(parts, 1), state: state! };
}

function problems(sizes: Case) {
	return Array.from({ length: drawsFor(sizes) }, (_, i) => {
		const { lengths, ...inputs } = subject.inputs(sizes, generator(1 + i));
		const arrays = (precision: Precision) => ({
			...mapValues(inputs, ({ data }): Floats => precision.of(data)),
			...(lengths && { lengths: lengths.data as unknown as Floats }),
		});
		return { inputs, lengths: lengths && Array.from(lengths.data, (n) => Math.min(n, sizes.T)), arrays };
	});
}

/** How far each result may be from the exact one. */
function bounds(answers: readonly { exact: Readonly<Record<string, Floats>>; naive: Readonly<Record<string, Floats>> }[]) {
	return mapValues(answers[0]!.exact, (_, name) => {
		const error = Math.max(...answers.map((answer) => worst(answer.naive[name]!, answer.exact[name]!)));
		return 2 * error + rounding * Math.max(...answers.map((answer) => largest(answer.exact[name]!)));
	});
}

const small = (device: DeviceName, sizes: Case): Case => (isSlow(device) ? { ...sizes, B: 1, T: 19, H: 2, G: 1 } : sizes);
const mapOf = (sizes: Case, device: DeviceName) =>
	favor({ kind: favorKinds[sizes.kind]!, dim: sizes.D, features: sizes.M, seed: 5, epsilon: sizes.epsilon * 1e-6, device });
const titled = cases.map((sizes): [string, Case] => [`${favorKinds[sizes.kind]} ${title(sizes)}`, sizes]);

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	test.each(titled)('all at once = in pieces = one by one: %s', async (_, given) => {
		const sizes = small(device, given);
		const drawn = problems(sizes);
		const answers = drawn.map(({ arrays }) => ({
			exact: subject.reference(sizes, arrays(exact), exact),
			naive: subject.reference(sizes, arrays(naive), naive),
		}));
		const most = bounds(answers);
		using features = mapOf(sizes, device);
		for (const [i, { inputs, lengths }] of drawn.entries()) {
			const tensors = tensorsOf(inputs, device);
			for (const cuts of waysToCut(sizes.T)) {
				for (const inPlace of [false, true]) {
					const { o, state } = noGrad(() => inPieces(tensors, lengths, cuts, features, inPlace));
					for (const [name, found] of Object.entries({ o, ...state })) {
						const numbers = await found.read();
						expect(worst(numbers, answers[i]!.exact[name]!), `${name} of draw ${i}, cut at ${cuts}`).toBeLessThanOrEqual(most[name]!);
					}
				}
			}
		}
	});

	test.each(titled)('gradients pass through the states: pieces are one: %s', async (_, given) => {
		const sizes = small(device, given);
		const drawn = problems(sizes);
		const weigh = generator(77);
		const answers = drawn.map(({ arrays }) => {
			const results = subject.reference(sizes, arrays(exact), exact);
			const r = mapValues({ o: results.o!, z: results.z!, S: results.S! }, ({ length }) => Float32Array.from({ length }, weigh));
			return {
				r,
				exact: subject.gradient!(sizes, arrays(exact), mapValues(r, exact.of), exact),
				naive: subject.gradient!(sizes, arrays(naive), mapValues(r, naive.of), naive),
			};
		});
		const most = bounds(answers);
		using features = mapOf(sizes, device);
		const { T } = sizes;
		for (const [i, { inputs, lengths }] of drawn.entries()) {
			for (const cuts of [...waysToCut(T).slice(0, 4), [0, 1, T], [0, Math.floor(T / 2), T], [0, T - 1, T], waysToCut(T).at(-1)!]) {
				const tensors = tensorsOf(inputs, device, true);
				const { o, state } = inPieces(tensors, lengths, cuts, features);
				const parts = Object.entries({ o, z: state.z, S: state.S }).map(([name, result]) => {
					const weight = tensor(answers[i]!.r[name]!, [result.size], { device });
					return ops.sum(ops.mul(ops.reshape(result, [result.size]), weight), 0);
				});
				parts.reduce((a, b) => ops.add(a, b)).backward();
				for (const [name, expected] of Object.entries(answers[i]!.exact)) {
					const found = await tensors[name]!.grad!.read();
					// What passes a cut is rounded there once more than where nothing is cut, which is what the naive method does.
					const bound = most[name]! + (cuts.length - 2) * rounding * largest(expected);
					expect(worst(found, expected), `d${name} of draw ${i}, cut at ${cuts}`).toBeLessThanOrEqual(bound);
				}
			}
		}
	});
});
