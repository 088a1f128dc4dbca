/** A stream of a million tokens: the state does not drift away from the same stream in double precision, and takes no more memory. */
import { expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { memory, synchronize } from '../../lib/device.js';
import { type FavorKind, favor } from '../../lib/ops/favor.js';
import { type FavorState, linearAttention } from '../../lib/ops/linear_attention.js';
import { tensor } from '../../lib/tensor.js';
import { omegaOf } from '../favor_reference.js';
import { generator, largest, rounding } from '../harness.js';

const [D, M, E] = [4, 8, 3];
const EPSILON = 1e-6;

/** (c, z, S) of positive features in one precision, a key and value at a time (algorithms C.4). */
class Stream {
	c = -Infinity;
	readonly z: Float64Array | Float32Array;
	readonly S: Float64Array | Float32Array;
	readonly #a = new Float64Array(M);
	readonly #omega: Float32Array;

	constructor(omega: Float32Array, make: (n: number) => Float64Array | Float32Array) {
		this.#omega = omega;
		[this.z, this.S] = [make(M), make(M * E)];
	}

	/** ψ, and ℓ which it returns. */
	features(from: Float32Array, at: number): number {
		let [half, top] = [0, -Infinity];
		for (let d = 0; d < D; d++) half += from[at + d]! ** 2 / Math.sqrt(D) / 2;
		for (let m = 0; m < M; m++) {
			let sum = 0;
			for (let d = 0; d < D; d++) sum += this.#omega[m * D + d]! * from[at + d]! * D ** -0.25;
			this.#a[m] = sum;
			top = Math.max(top, sum);
		}
		for (let m = 0; m < M; m++) this.#a[m] = Math.exp(this.#a[m]! - top) + EPSILON;
		return top - half;
	}

	join(k: Float32Array, v: Float32Array, t: number): void {
		const scale = this.features(k, t * D);
		const after = Math.max(this.c, scale);
		const [keep, weight] = [Math.exp(this.c - after), Math.exp(scale - after)];
		this.c = after;
		for (let m = 0; m < M; m++) {
			const part = weight * this.#a[m]!;
			this.z[m] = keep * this.z[m]! + part;
			for (let e = 0; e < E; e++) this.S[m * E + e] = keep * this.S[m * E + e]! + part * v[t * E + e]!;
		}
	}

	output(q: Float32Array, t: number): number[] {
		this.features(q, t * D);
		let R = 0;
		for (let m = 0; m < M; m++) R += this.#a[m]! * this.z[m]!;
		return Array.from({ length: E }, (_, e) => this.#a.reduce((sum, each, m) => sum + each * this.S[m * E + e]!, 0) / R);
	}
}

/** The worst |found e^(c − c exact) − exact|, by the largest exact number. */
function apart(found: ArrayLike<number>, exact: ArrayLike<number>, shift = 0): number {
	let most = 0;
	for (let i = 0; i < exact.length; i++) most = Math.max(most, Math.abs(found[i]! * Math.exp(shift) - exact[i]!));
	return most / largest(exact);
}

// Pieces of 1,000 go in chunks of 32, pieces of 5 a token at a time.
test.each([
	['softmax', 1000],
	['hyperbolic', 1000],
	['softmax', 5],
] as const satisfies readonly (readonly [FavorKind, number])[])('%s, in pieces of %i', async (kind, piece) => {
	const tokens = 1_000_000;
	const options = { kind, dim: D, features: M, seed: 1, epsilon: EPSILON };
	using features = favor(options);
	const [exact, naive] = [
		new Stream(omegaOf(options), (n) => new Float64Array(n)),
		new Stream(omegaOf(options), (n) => new Float32Array(n)),
	];
	const random = generator(12);
	let state: FavorState | undefined;
	const errors: Record<number, { z: number; S: number; o: number }> = {};
	const naives: Record<number, { z: number; S: number; o: number }> = {};
	let held = 0;
	for (let t = 0; t < tokens; t += piece) {
		const numbers = (width: number, size: number) => Float32Array.from({ length: piece * width }, () => size * random());
		const [q, k, v] = [numbers(D, 2), numbers(D, 2), numbers(E, 1).map((x) => x + 0.5)];
		const tensors = [tensor(q, [1, piece, 1, D]), tensor(k, [1, piece, 1, D]), tensor(v, [1, piece, 1, E])] as const;
		const made = noGrad(() => linearAttention(...tensors, { features, causal: true, state, inPlace: true }));
		state = made.state;
		for (let i = 0; i < piece; i++) {
			exact.join(k, v, i);
			naive.join(k, v, i);
		}
		const seen = t + piece;
		if (seen === 10_000 || seen === tokens) {
			const [c, z, S, o] = [await state.c.read(), await state.z.read(), await state.S.read(), (await made.o.read()).slice(-E)];
			expect(Math.abs(c[0]! - exact.c)).toBeLessThanOrEqual(8 * D * rounding * Math.max(1, Math.abs(exact.c)));
			const at = exact.output(q, piece - 1);
			errors[seen] = { z: apart(z, exact.z, c[0]! - exact.c), S: apart(S, exact.S, c[0]! - exact.c), o: apart(o, at) };
			naives[seen] = { z: apart(naive.z, exact.z), S: apart(naive.S, exact.S), o: apart(naive.output(q, piece - 1), at) };
		}
		for (const each of [...tensors, made.o]) each.dispose();
		if (seen === 10_000 || seen === tokens) {
			await synchronize();
			if (held === 0) held = memory().bytes;
			else expect(memory().bytes).toBe(held);
		}
	}
	for (const each of Object.values(state!)) each.dispose();
	for (const seen of [10_000, tokens]) {
		for (const name of ['z', 'S', 'o'] as const) {
			// A chunk of 32 is added up by itself and joins the state with one rounding: a random walk of as many, four sigmas. Token by token,
			// parts of less than half a rounding of the sum are lost, as in the naive method; to be no worse is all that f32 leaves.
			const bound = piece >= 32 ? 4 * rounding * Math.sqrt(seen / 32 + M) : 2 * naives[seen]![name] + rounding;
			expect(errors[seen]![name], `${name} after ${seen} tokens`).toBeLessThanOrEqual(bound);
		}
	}
});
