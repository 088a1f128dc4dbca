import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { Fields } from '../../lib/io/fields.js';
import { readRope } from '../../lib/io/hugging_face_rope.js';
import { ropeFrequencies, yarnMagnitude } from '../../lib/io/rope.js';

/** Numbers from a program of its own that follows the published code of transformers, in double. */
function expectAt(frequencies: Float64Array, expected: Readonly<Record<number, number>>): void {
	for (const [i, value] of Object.entries(expected)) expect(frequencies[Number(i)]! / value, `pair ${i}`).toBeCloseTo(1, 12);
}

const llama31 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
const qwenYarn = { type: 'yarn', factor: 4, original_max_position_embeddings: 32768 };

const read = (config: object, headDim = 128, context = 131072) => readRope(new Fields('c.json', { ...config }), headDim, context);

test('without scaling: θ^(−2i/D)', () => {
	const { frequencies, magnitude } = ropeFrequencies(8, 10000, null);
	expect(magnitude).toBe(1);
	expect(frequencies).toHaveLength(4);
	expectAt(frequencies, { 0: 1, 1: 0.1, 2: 0.01, 3: 0.001 });
	for (const none of [{}, { rope_scaling: null }, { rope_scaling: { rope_type: 'default' } }, { rope_parameters: {} }]) {
		expect(read(none, 8).frequencies).toEqual(frequencies);
		expect(read(none, 8)).toMatchObject({ theta: 10000, magnitude: 1, pairs: 'halves' });
	}
});

test('θ from either place', () => {
	expect(read({ rope_theta: 500000 }).theta).toBe(500000);
	expect(read({ rope_theta: 1, rope_parameters: { rope_type: 'default', rope_theta: 1e6 } }).theta).toBe(1e6);
	expect(read({ rope_theta: 7, rope_parameters: { rope_type: 'default' } }).theta).toBe(7);
});

test('linear: every frequency divided', () => {
	for (const key of ['type', 'rope_type']) {
		const { frequencies, magnitude } = read({ rope_scaling: { [key]: 'linear', factor: 2.5 } }, 8);
		expectAt(frequencies, { 0: 0.4, 1: 0.04, 3: 0.0004 });
		expect(magnitude).toBe(1);
	}
});

test('llama3: Llama 3.1 8B and 3.2 1B', () => {
	const eight = read({ rope_theta: 500000, rope_scaling: llama31 });
	expectAt(eight.frequencies, {
		0: 1,
		20: 0.016560440080994446,
		28: 0.0032114459947525913,
		29: 0.002166570763503359,
		30: 0.0013718935677611381,
		33: 0.00031269375038406517,
		34: 0.00017850781276799638,
		35: 9.556212353964683e-5,
		63: 3.068925988914511e-7,
	});
	expect(eight.magnitude).toBe(1);
	const one = read({ rope_parameters: { ...llama31, factor: 32, rope_theta: 500000 } }, 64).frequencies;
	const kept = ropeFrequencies(64, 500000, null).frequencies;
	const divided = [1, 1, 1, 1.6513292457638982, 3.2922621029408843, 9.66672897875329, 32, 32];
	for (const [i, factor] of divided.entries()) expect(kept[12 + i]! / one[12 + i]!).toBeCloseTo(factor, 12);
});

test('yarn: Qwen2.5, ends of the ramp at whole pairs and not', () => {
	const whole = read({ rope_theta: 1e6, rope_scaling: qwenYarn });
	expectAt(whole.frequencies, {
		0: 1,
		23: 0.006978305848598663,
		24: 0.005375321490790102,
		30: 0.0010643609812470017,
		39: 6.490394320837028e-5,
		40: 4.445698525097307e-5,
		63: 3.102344401879299e-7,
	});
	expect(whole.magnitude).toBeCloseTo(1.1386294361119891, 14);
	const broken = read({ rope_theta: 1e6, rope_scaling: { ...qwenYarn, truncate: false } });
	expectAt(broken.frequencies, { 23: 0.006978305848598663, 24: 0.0055172704751341225, 39: 6.187806812450695e-5, 40: 4.445698525097307e-5 });
	// The context of the first training is the model's own where none is given; the ramp's ends may meet.
	expectAt(read({ rope_scaling: { type: 'yarn', factor: 4 } }, 8, 64).frequencies, { 0: 1, 1: 0.0625, 2: 0.0025, 3: 0.00025 });
	const far = { type: 'yarn', factor: 4, beta_fast: 1e5 }; // a ramp from pair 2 that would end behind the last
	expectAt(read({ rope_theta: 2, rope_scaling: far }, 8, 1e6).frequencies, { 2: 2 ** -0.5, 3: 2 ** -0.75 * (0.8 + 0.2 / 4) });
	const one = { type: 'yarn', factor: 4, beta_fast: 1.0001 };
	expectAt(read({ rope_scaling: one }, 8, 6).frequencies, { 0: 1, 1: 0.025, 3: 0.00025 });
});

test('yarn: what attention is multiplied by', () => {
	const magnitude = (more: object) => read({ rope_scaling: { ...qwenYarn, ...more } }).magnitude;
	expect(yarnMagnitude(0.5)).toBe(1);
	expect(magnitude({ factor: 40, mscale: 1, mscale_all_dim: 0.8 })).toBeCloseTo((0.1 * Math.log(40) + 1) / (0.08 * Math.log(40) + 1), 14);
	expect(magnitude({ factor: 40, mscale: 0.7, mscale_all_dim: 0 })).toBeCloseTo(0.1 * Math.log(40) + 1, 14);
	expect(magnitude({ attention_factor: 1.25, mscale: 1, mscale_all_dim: 1 })).toBe(1.25);
	expect(magnitude({ factor: null })).toBeCloseTo(yarnMagnitude(131072 / 32768), 14);
	expect(magnitude({ beta_fast: 0, beta_slow: null })).toBe(magnitude({}));
});

describe('what makes no sense is refused, with its name', () => {
	test.each<[string, object, string]>([
		['a kind that is not known', { rope_scaling: { rope_type: 'dynamic', factor: 2 } }, '`rope_scaling.rope_type` is "dynamic"'],
		['an old name of a kind', { rope_scaling: { type: 'longrope', long_factor: [1] } }, '`rope_scaling.type` is "longrope"'],
		['a kind from the prototype', { rope_parameters: { rope_type: 'constructor' } }, '"constructor"'],
		['no kind', { rope_scaling: { factor: 2 } }, '`rope_scaling.rope_type` is not there'],
		['text', { rope_scaling: 'linear' }, '`rope_scaling` is "linear"'],
		['a set for each kind of layer', { rope_parameters: { full_attention: { rope_theta: 2 } } }, '`rope_parameters.full_attention`'],
		['a factor of 0', { rope_scaling: { type: 'linear', factor: 0 } }, '`rope_scaling.factor` is 0'],
		['a factor that is text', { rope_scaling: { type: 'linear', factor: '2' } }, '`rope_scaling.factor` is "2"'],
		['no factor', { rope_scaling: { ...llama31, factor: undefined } }, '`rope_scaling.factor` is not there'],
		['a ramp upside down', { rope_scaling: { ...llama31, high_freq_factor: 1 } }, '`rope_scaling.high_freq_factor` is 1'],
		['no first context', { rope_scaling: { ...llama31, original_max_position_embeddings: null } }, 'original_max_position_embeddings'],
		['turns upside down', { rope_scaling: { ...qwenYarn, beta_slow: 32 } }, '`rope_scaling.beta_fast`'],
		['a θ of infinity', { rope_theta: Number.POSITIVE_INFINITY }, '`rope_theta`'],
		['a θ that is not a number', { rope_theta: Number.NaN }, '`rope_theta`'],
		['a θ below 1', { rope_theta: 0.5 }, '`rope_theta` is 0.5'],
		['a θ of 1 with yarn', { rope_theta: 1, rope_scaling: qwenYarn }, '`rope_theta` is 1'],
		['part of a head', { partial_rotary_factor: 0.5 }, '`partial_rotary_factor` is 0.5'],
		['part of a head, elsewhere', { rope_parameters: { partial_rotary_factor: 0.25 } }, '`rope_parameters.partial_rotary_factor`'],
	])('%s', (_, config, message) => {
		expect(() => read(config)).toThrow(FormatError);
		expect(() => read(config)).toThrow(message);
	});
});
