import { describe, expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import type { CausalAttention } from '../../lib/layers/causal_attention.js';
import { Performer } from '../../lib/models/performer.js';
import { AttentionTally, attentionOf } from '../../lib/models/protein_attention.js';
import { proteinModel } from '../../lib/models/protein_model.js';
import { proteinTokens } from '../../lib/models/protein_tokens.js';
import { reshape } from '../../lib/ops/elementwise.js';
import { embed } from '../../lib/ops/embed.js';
import { Random } from '../../lib/random.js';
import { scope, Tensor } from '../../lib/tensor.js';

const ids = Int32Array.from([proteinTokens.begin, 3, 14, 0, 19, 7, 7, 2, 11, 5, 16, proteinTokens.end]);
const T = ids.length;

describe.each([
	['causal', 'performer', 'softmax', true],
	['causal', 'performer', 'relu', false],
	['masked', 'performer', 'relu', true],
	['causal', 'attention', 'softmax', true],
	['masked', 'attention', 'softmax', false],
] as const)('attentionOf: %s, %s (%s), positions %s', (mode, mixer, featureKind, rope) => {
	const model = () => proteinModel(mode, { dim: 20, layers: 2, heads: 2, hidden: 24, features: 12, mixer, featureKind, rope, seed: 4 });

	test('rows add up to 1 and see what the layer sees', async () => {
		using made = model();
		const maps = await attentionOf(made, ids);
		expect(maps.map(({ layer, heads }) => [layer, heads])).toEqual([
			[0, 2],
			[1, 2],
		]);
		for (const { weights } of maps) {
			expect(weights).toHaveLength(T * 2 * T);
			for (let row = 0; row < 2 * T; row++) {
				const line = weights.subarray(row * T, (row + 1) * T);
				expect(Math.abs(line.reduce((sum, weight) => sum + weight, 0) - 1)).toBeLessThan(1e-5);
				for (let j = 0; j < T; j++) {
					if (mode === 'causal' && j > Math.floor(row / 2)) expect(line[j]).toBe(0);
					else expect(line[j]).toBeGreaterThan(0);
				}
			}
		}
	});

	test('values times weights are what the layer makes of its input', async () => {
		using made = model();
		const maps = await attentionOf(made, ids);
		const [block] = made.stack.blocks;
		const layer = block!.mixer as CausalAttention;
		const { v, out } = noGrad(() =>
			scope(() => {
				const x = block!.norm1.forward(reshape(embed(ids, made.embedding), [1, T, 20]));
				return { v: layer.v.forward(x).read(), out: layer.forward(x).read() };
			}),
		);
		const values = await v;
		const mixed = new Float32Array(T * 20);
		for (let i = 0; i < T; i++)
			for (let c = 0; c < 20; c++)
				for (let j = 0; j < T; j++) mixed[i * 20 + c]! += maps[0]!.weights[(i * 2 + Math.floor(c / 10)) * T + j]! * values[j * 20 + c]!;
		using again = noGrad(() => layer.out.forward(Tensor.empty([1, T, 20], 'cpu', 'f32', mixed)));
		const [found, expected] = [await again.read(), await out];
		for (let i = 0; i < found.length; i++) expect(Math.abs(found[i]! - expected[i]!)).toBeLessThan(1e-5);
	});
});

test('a mixer that is no attention', async () => {
	using model = new Performer({ vocabulary: proteinTokens.size, dim: 8, layers: 1, heads: 2, mixer: 'aaren' });
	await expect(attentionOf(model, ids)).rejects.toThrow("the model's mixer is aaren, expected performer or attention");
});

describe('AttentionTally', () => {
	/** 20 amino acids several times over in any order, between begin and end. */
	function sequence(seed: number): Int32Array {
		const residues = new Random(seed).shuffle(Int32Array.from({ length: 80 }, (_, i) => i % 20));
		return Int32Array.from([proteinTokens.begin, ...residues, proteinTokens.end]);
	}

	/** One head whose weights are as `of` says, each row made to add up to 1. */
	function mapOf(list: Int32Array, causal: boolean, of: (a: number, b: number, i: number, j: number) => number) {
		const n = list.length;
		const weights = new Float32Array(n * n);
		for (let i = 0; i < n; i++) {
			const seen = causal ? i + 1 : n;
			let sum = 0;
			for (let j = 0; j < seen; j++) sum += weights[i * n + j] = of(list[i]!, list[j]!, i, j);
			for (let j = 0; j < seen; j++) weights[i * n + j]! /= sum;
		}
		return [{ layer: 0, heads: 1, weights }];
	}

	const tallied = (causal: boolean, of: (a: number, b: number, i: number, j: number) => number) => {
		const tally = new AttentionTally(causal);
		for (let seed = 0; seed < 6; seed++) tally.add(mapOf(sequence(seed), causal, of), sequence(seed));
		return tally;
	};

	test.each([true, false])('attention that is spread evenly: 1 for every pair (causal: %s)', (causal) => {
		const tally = tallied(causal, () => 1);
		for (const expected of ['own', 'even'] as const) {
			const matrix = tally.similarity(expected);
			for (const value of matrix) expect(Math.abs(value - 1)).toBeLessThan(1e-6);
		}
		const [head] = tally.heads();
		expect(head!.distance).toBeCloseTo(head!.evenDistance, 5);
		if (!causal) expect(head!.concentration).toBeCloseTo(1, 5);
	});

	test('two that look for each other stand out by as much as they do', () => {
		const pair = (a: number, b: number) => (a === 2 && b === 5) || (a === 5 && b === 2);
		const matrix = tallied(false, (a, b) => (pair(a, b) ? 4 : 1)).similarity('even');
		// Of 82 tokens 4 have four times the weight: 4 · 82 / (78 + 16) times as much as evenly.
		expect(matrix[2 * 20 + 5]).toBeCloseTo((4 * 82) / 94, 4);
		expect(matrix[5 * 20 + 2]).toBe(matrix[2 * 20 + 5]);
		expect(matrix[2 * 20 + 7]).toBeCloseTo((82 / 94 + 1) / 2, 4);
		const largest = matrix.indexOf(Math.max(...matrix));
		expect([2 * 20 + 5, 5 * 20 + 2]).toContain(largest);
	});

	test('one that all look at is like all others, unless nothing is allowed for', () => {
		const popular = tallied(false, (_, b) => (b === 9 ? 6 : 1));
		expect(popular.similarity('even')[9 * 20 + 3]).toBeGreaterThan(2);
		for (const value of popular.similarity()) expect(Math.abs(value - 1)).toBeLessThan(1e-4);
	});

	test('heads: how far they look, and whether all look at the same', () => {
		const n = sequence(0).length;
		const near = tallied(false, (_, __, i, j) => (Math.abs(i - j) === 1 ? 1 : 0)).heads()[0]!;
		expect(near.distance).toBeCloseTo(1, 5);
		// Mean of |i − j| over all pairs: (n² − 1) / 3n.
		expect(near.evenDistance).toBeCloseTo((n * n - 1) / (3 * n), 5);
		const one = tallied(false, (_, __, ___, j) => (j === 40 ? 1 : 0)).heads()[0]!;
		expect(one.concentration).toBeCloseTo(n, 3);
	});

	test('pairs that never met', () => {
		const tally = new AttentionTally(false);
		const list = Int32Array.from([0, 1, 2, 3]);
		tally.add(
			mapOf(list, false, () => 1),
			list,
		);
		expect(() => tally.similarity()).toThrow('are in none of the 1 sequences together');
	});
});
