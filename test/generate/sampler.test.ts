import { describe, expect, test, vi } from 'vitest';
import { ArgumentError } from '../../lib/errors.js';
import { logprob, Sampler, type SamplerOptions } from '../../lib/generate/sampler.js';
import { Random } from '../../lib/random.js';

interface Text {
	readonly prompt: readonly number[];
	readonly generated: readonly number[];
}

/** The definition, step by step, with a full sort and without a thought for time. */
function reference(
	logits: readonly number[],
	options: SamplerOptions,
	{ prompt, generated }: Text = { prompt: [], generated: [] },
): number[] {
	const { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, frequencyPenalty = 0, presencePenalty = 0 } = options;
	const { penaltyWindow = 64, logitBias = {} } = options;
	const all = [...prompt.map((token) => ({ token, own: false })), ...generated.map((token) => ({ token, own: true }))];
	const last = penaltyWindow === 0 ? [] : all.slice(-penaltyWindow);
	const scores = logits.map((logit, token) => {
		let score = logit;
		if (last.some((each) => each.token === token)) score = score > 0 ? score / repetitionPenalty : score * repetitionPenalty;
		const times = last.filter((each) => each.own && each.token === token).length;
		if (times > 0) score -= times * frequencyPenalty + presencePenalty;
		const bias = new Map<number, number>(logitBias instanceof Map ? logitBias : Object.entries(logitBias).map(([t, b]) => [Number(t), b]));
		return bias.get(token) === -Infinity ? -Infinity : score + (bias.get(token) ?? 0);
	});
	let order = scores.map((_, token) => token).sort((a, b) => (scores[a] === scores[b] ? a - b : scores[b]! > scores[a]! ? 1 : -1));
	const most = scores[order[0]!]!;
	const weight = (token: number, t: number) => (scores[token] === most ? 1 : Math.exp((scores[token]! - most) / t));
	if (temperature === 0) return scores.map((_, token) => (token === order[0] ? 1 : 0));
	if (topK > 0) order = order.slice(0, topK);
	const total = order.reduce((sum, token) => sum + weight(token, 1), 0);
	if (topP < 1) {
		let sum = 0;
		const needed = order.findIndex((token) => (sum += weight(token, 1)) >= topP * total);
		if (needed >= 0) order = order.slice(0, needed + 1);
	}
	order = order.filter((token) => weight(token, 1) >= minP);
	const rest = order.reduce((sum, token) => sum + weight(token, temperature), 0);
	return scores.map((_, token) => (order.includes(token) ? weight(token, temperature) / rest : 0));
}

/** Logits as they come: smooth, with many ties, with infinities; never all −∞. */
function draw(random: Random, V: number): number[] {
	const kind = random.integer(4);
	const logits = Array.from({ length: V }, () => {
		if (kind > 1 && random.uniform() < 0.2) return -Infinity;
		if (kind > 2 && random.uniform() < 0.05) return Infinity;
		const value = 3 * random.normal();
		return Math.fround(kind % 2 ? Math.round(value) : value);
	});
	logits[random.integer(V)] = 1;
	return logits;
}

/** The same tokens are possible, and all are as probable up to the rounding of sums of V numbers up to 1 in another order. */
function near(found: Float64Array, expected: readonly number[], what: unknown): void {
	const allowed = expected.length * 2 ** -52;
	const wrong = expected.findIndex((p, token) => found[token]! > 0 !== p > 0 || !(Math.abs(found[token]! - p) <= allowed));
	if (wrong >= 0 || found.length !== expected.length) {
		expect.fail(`token ${wrong} of ${JSON.stringify(what)} has ${found[wrong]}, expected ${expected[wrong]}`);
	}
}

const pick = <T>(random: Random, values: readonly T[]): T => values[random.integer(values.length)]!;

describe('the distribution is that of the definition', () => {
	const alone: [string, (random: Random) => SamplerOptions][] = [
		['nothing', () => ({})],
		['temperature', (r) => ({ temperature: 0.1 + 3 * r.uniform() })],
		['top-k', (r) => ({ topK: 1 + r.integer(40) })],
		['top-p', (r) => ({ topP: r.uniform() })],
		['min-p', (r) => ({ minP: r.uniform() ** 3 })],
		['repetition', (r) => ({ repetitionPenalty: pick(r, [0.7, 1.3, 2]), penaltyWindow: pick(r, [0, 1, 5, 64, Infinity]) })],
		['frequency', (r) => ({ frequencyPenalty: pick(r, [-0.5, 0.3, 2]), penaltyWindow: pick(r, [0, 1, 5, 64, Infinity]) })],
		['presence', (r) => ({ presencePenalty: pick(r, [-0.5, 0.3, 2]), penaltyWindow: pick(r, [0, 1, 5, 64, Infinity]) })],
		['bias', (r) => ({ logitBias: new Map([0, 1, 2].map((token) => [token, pick(r, [-Infinity, -2, 0.5, 100])])) })],
		['greedy', () => ({ temperature: 0 })],
	];
	const together: [string, (random: Random) => SamplerOptions] = [
		'all together',
		(r) => Object.assign({}, ...alone.slice(1, -1).map(([, options]) => (r.uniform() < 0.6 ? options(r) : {}))),
	];

	test.each([...alone, together])('%s', (_, options) => {
		const random = new Random(11);
		for (let round = 0; round < 300; round++) {
			const V = 5 + random.integer(60);
			const given = options(random);
			const sampler = new Sampler(V, given);
			const prompt = Array.from({ length: random.integer(12) }, () => random.integer(V));
			sampler.prompt(prompt);
			const generated: number[] = [];
			for (let step = 0; step < 8; step++) {
				const logits = draw(random, V);
				logits[4] = 0.5; // a token that no bias bans
				near(sampler.distribution(Float32Array.from(logits)), reference(logits, given, { prompt, generated }), {
					logits,
					given,
					prompt,
					generated,
				});
				generated.push(sampler.sample(Float32Array.from(logits)));
			}
		}
	});

	test('a nucleus of thousands of tokens, and a top-k of thousands', () => {
		const random = new Random(3);
		const V = 6000;
		for (const spread of [0, 0.01, 1, 4]) {
			const logits = Array.from({ length: V }, () => Math.fround(spread * random.normal()));
			for (const given of [{ topP: 0.9 }, { topP: 0.999999 }, { topK: 3000 }, { topK: 5999, topP: 0.97 }, { topK: 9000 }]) {
				near(new Sampler(V, given).distribution(Float32Array.from(logits)), reference(logits, given), given);
			}
		}
	});

	test('ties at the edges, by hand', () => {
		const found = (options: SamplerOptions, ...logits: number[]) => [...new Sampler(logits.length, options).distribution(logits)];
		expect(found({ topK: 2 }, 1, 1, 1, 1)).toEqual([0.5, 0.5, 0, 0]);
		expect(found({ topK: 2 }, 0, 1, 0, 1)).toEqual([0, 0.5, 0, 0.5]);
		expect(found({ topP: 0.5 }, 1, 1, 1, 1)).toEqual([0.5, 0.5, 0, 0]);
		expect(found({ topP: 0.51 }, 1, 1, 1, 1)).toEqual([1 / 3, 1 / 3, 1 / 3, 0]);
		expect(found({ topP: 0 }, 1, 2, 2)).toEqual([0, 1, 0]);
		expect(found({ minP: 1 }, 1, 2, 2)).toEqual([0, 0.5, 0.5]);
		expect(found({ temperature: 1e-300 }, 1, 2, 2)).toEqual([0, 0.5, 0.5]);
		expect(found({}, 1, Infinity, -Infinity, Infinity)).toEqual([0, 0.5, 0, 0.5]);
		expect(found({ logitBias: { 1: -Infinity } }, -Infinity, Infinity, 0)).toEqual([0, 0, 1]);
		// The filters look at the model's own probabilities: 0.5 and 0.25 are kept by a min-p of 0.5 at any temperature.
		const halves = [Math.log(4), Math.log(2), 0];
		expect(found({ minP: 0.49, temperature: 100 }, ...halves)[2]).toBe(0);
		expect(found({ minP: 0.49, temperature: 0.01 }, ...halves)[1]).toBeGreaterThan(0);
	});

	test('memory may be shared', () => {
		const scratch = new Float64Array(4);
		const [a, b] = [new Sampler(4, { topK: 2 }, scratch), new Sampler(4, { minP: 0.1 }, scratch)];
		for (let i = 0; i < 3; i++) {
			near(a.distribution([1, 2, 3, 4]), reference([1, 2, 3, 4], { topK: 2 }), 'a');
			near(b.distribution([4, 3, 2, -9]), reference([4, 3, 2, -9], { minP: 0.1 }), 'b');
		}
	});
});

describe('drawing', () => {
	/** Pearson's statistic of `draws` samples; tokens of probability 0 must not come. */
	function chiSquare(logits: readonly number[], options: SamplerOptions, draws: number): { statistic: number; freedom: number } {
		const sampler = new Sampler(logits.length, options);
		const counts = logits.map(() => 0);
		for (let i = 0; i < draws; i++) counts[sampler.sample(logits)]!++;
		let statistic = 0;
		let freedom = -1;
		for (const [token, p] of reference(logits, options).entries()) {
			if (p === 0) expect(counts[token], `token ${token}`).toBe(0);
			else {
				statistic += (counts[token]! - draws * p) ** 2 / (draws * p);
				freedom++;
			}
		}
		return { statistic, freedom };
	}

	// Percentiles 0.1 and 99.9 of chi-square, from tables: with a fixed seed, a right sampler passes or fails once and for all.
	const bounds: Record<number, [number, number]> = { 3: [0.024, 16.266], 4: [0.091, 18.467], 9: [1.152, 27.877] };
	const logits = [0.5, -1, 2, 1.5, 0, -0.5, 1, 2, -2, 0.25];

	test.each<[SamplerOptions]>([
		[{}],
		[{ temperature: 0.7 }],
		[{ temperature: 1.8 }],
		[{ topK: 5 }],
		[{ topK: 5, temperature: 0.5 }],
		[{ topP: 0.75 }],
		[{ minP: 0.3 }],
	])('tokens come as often as they should: %j', (options) => {
		for (const seed of [1, 2]) {
			const { statistic, freedom } = chiSquare(logits, { ...options, seed }, 50_000);
			expect(statistic).toBeGreaterThan(bounds[freedom]![0]);
			expect(statistic).toBeLessThan(bounds[freedom]![1]);
		}
	});

	test('the same seed, the same tokens; another seed, others', () => {
		const random = new Random(5);
		const steps = Array.from({ length: 60 }, () => Float32Array.from(draw(random, 50)));
		for (const options of [{}, { topP: 0.9, temperature: 1.2 }, { topK: 10, repetitionPenalty: 1.1 }]) {
			const run = (seed?: number) => {
				const sampler = new Sampler(50, { ...options, seed });
				return steps.map((logits) => sampler.sample(logits));
			};
			expect(run(7)).toEqual(run(7));
			expect(run(7)).not.toEqual(run(8));
			expect(run()).toEqual(run(0));
		}
	});

	test('at temperature 0 the lowest of the highest', () => {
		const sample = (logits: number[], options: SamplerOptions = {}) =>
			new Sampler(logits.length, { temperature: 0, ...options }).sample(logits);
		expect(sample([1, 3, 3, 2])).toBe(1);
		expect(sample([0, -0, 0])).toBe(0);
		expect(sample([-Infinity, -5, -5])).toBe(1);
		expect(sample([1, Infinity, Infinity])).toBe(1);
		expect(sample([1, 3, 3, 2], { topK: 3, topP: 0.1, minP: 1 })).toBe(1);
		expect(sample([1, 3, 3, 2], { logitBias: { 1: -0.1 } })).toBe(2);
		expect(sample([1, 3, 3, 2], { logitBias: new Map([[3, 1.5]]) })).toBe(3);
	});

	test.each([0, 1 - 2 ** -53])('the extreme random number %d chooses no token that is banned', (extreme) => {
		const random = new Random(4);
		const cases = Array.from({ length: 500 }, () => [-Infinity, ...Array.from({ length: 30 }, () => random.normal()), -Infinity]);
		using _ = vi.spyOn(Random.prototype, 'uniform').mockReturnValue(extreme);
		for (const logits of cases) {
			for (const options of [{}, { topK: 32 }, { topK: 31 }, { topP: 0.9999999 }]) {
				const token = new Sampler(32, options).sample(logits);
				expect(logits[token], `token ${token}`).toBeGreaterThan(-Infinity);
			}
		}
	});

	test('logits are not written to', () => {
		const logits = Float32Array.of(1, 2, 3);
		new Sampler(3, { repetitionPenalty: 2, topP: 0.5, logitBias: { 0: 5 } }).sample(logits);
		expect([...logits]).toEqual([1, 2, 3]);
	});
});

describe('refused', () => {
	test.each<[number, SamplerOptions, string]>([
		[0, {}, 'Sampler: vocabulary is 0, expected an integer in [1, 2³¹]'],
		[3, { temperature: -1 }, 'Sampler: temperature is -1, expected a finite number from 0'],
		[3, { temperature: Infinity }, 'Sampler: temperature is Infinity, expected a finite number from 0'],
		[3, { temperature: Number.NaN }, 'Sampler: temperature is NaN, expected a finite number from 0'],
		[3, { temperature: '1' as never }, 'Sampler: temperature is 1, expected a finite number from 0'],
		[3, { topK: 1.5 }, 'Sampler: topK is 1.5, expected an integer from 0'],
		[3, { topP: 1.1 }, 'Sampler: topP is 1.1, expected a number in [0, 1]'],
		[3, { minP: -0.1 }, 'Sampler: minP is -0.1, expected a number in [0, 1]'],
		[3, { repetitionPenalty: 0 }, 'Sampler: repetitionPenalty is 0, expected a finite number above 0'],
		[3, { frequencyPenalty: Infinity }, 'Sampler: frequencyPenalty is Infinity, expected a finite number'],
		[3, { presencePenalty: Number.NaN }, 'Sampler: presencePenalty is NaN, expected a finite number'],
		[3, { penaltyWindow: -1 }, 'Sampler: penaltyWindow is -1, expected an integer from 0 or Infinity'],
		[3, { seed: -1 }, 'Sampler: seed is -1, expected an integer in [0, 2⁵³)'],
		[3, { logitBias: { 3: 1 } }, 'Sampler: logitBias is for token 3, expected an integer in [0, 3)'],
		[3, { logitBias: JSON.parse('{"__proto__": 1}') }, 'Sampler: logitBias is for token __proto__, expected an integer in [0, 3)'],
		[3, { logitBias: new Map([[0.5, 1]]) }, 'Sampler: logitBias is for token 0.5, expected an integer in [0, 3)'],
		[3, { logitBias: { 1: Infinity } }, 'Sampler: logitBias of token 1 is Infinity, expected a finite number or -Infinity'],
		[3, { logitBias: { 1: Number.NaN } }, 'Sampler: logitBias of token 1 is NaN, expected a finite number or -Infinity'],
	])('%s %j', (vocabulary, options, message) => {
		expect(() => new Sampler(vocabulary, options)).toThrow(new ArgumentError(message));
	});

	test.each<[SamplerOptions]>([[{}], [{ temperature: 0 }], [{ topK: 2 }], [{ topP: 0.5 }]])('logits that say nothing: %j', (options) => {
		const sampler = new Sampler(3, options);
		const nan = 'Sampler.sample: the logit of token 1 is NaN, expected a number';
		expect(() => sampler.sample([5, Number.NaN, 1])).toThrow(new ArgumentError(nan));
		expect(() => sampler.sample([Infinity, Number.NaN, 1])).toThrow(new ArgumentError(nan));
		const none = 'Sampler.sample: the logits of all 3 tokens are -Infinity, expected one above';
		expect(() => sampler.sample([-Infinity, -Infinity, -Infinity])).toThrow(new ArgumentError(none));
		const length = 'Sampler.sample: found 2 logits, expected 3';
		expect(() => sampler.sample([1, 2])).toThrow(new ArgumentError(length));
		const banned = new Sampler(2, { ...options, logitBias: { 0: -Infinity } });
		expect(() => banned.sample([1, -Infinity])).toThrow('the bias may ban all that the model allows');
		expect(sampler.sample([-Infinity, -Infinity, 0])).toBe(2); // and is not the worse for it
	});
});

test('logprob is the logarithm of the softmax', () => {
	const logits = [1, -2, 0.5, 700, 699];
	const total = logits.reduce((sum, logit) => sum + Math.exp(logit - 700), 0);
	for (const [token, logit] of logits.entries()) expect(logprob(logits, token)).toBeCloseTo(logit - 700 - Math.log(total), 12);
	expect(logprob([0, -Infinity, 0], 1)).toBe(-Infinity);
	expect(logprob([0, Infinity, Infinity], 1)).toBe(-Math.log(2));
	expect(logprob([0, Infinity, Infinity], 0)).toBe(-Infinity);
});
