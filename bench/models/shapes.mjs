// Shapes of decoders that figures are taken on, and what they weigh. Their weights are random: time does not depend on them.

/** Bytes of a block of numbers as a file stores them, and how many numbers a block has. */
export const types = {
	f32: { number: 0, numbers: 1, bytes: 4 },
	f16: { number: 1, numbers: 1, bytes: 2 },
	q4_0: { number: 2, numbers: 32, bytes: 18 },
	q8_0: { number: 8, numbers: 32, bytes: 34 },
};

const byHand = { vocabulary: 32_000, context: 8192, epsilon: 1e-5, theta: 10_000 };

export const shapes = {
	/** For tests: small enough to be written and run in moments. */
	tiny: { ...byHand, dim: 64, layers: 2, heads: 4, kvHeads: 2, hidden: 192, vocabulary: 512, tied: true },
	/** stories110M of llama2.c, whose last linear map is its embedding. */
	'110m': { ...byHand, dim: 768, layers: 12, heads: 12, kvHeads: 12, hidden: 2048, tied: true },
	/** TinyLlama-1.1B. */
	'1.1b': { ...byHand, dim: 2048, layers: 22, heads: 32, kvHeads: 4, hidden: 5632, tied: false },
};

/** Matrices of a layer, [rows, columns], by their names in a GGUF. */
export function matricesOf({ dim, heads, kvHeads, hidden }) {
	const kv = (dim / heads) * kvHeads;
	return {
		attn_q: [dim, dim],
		attn_k: [kv, dim],
		attn_v: [kv, dim],
		attn_output: [dim, dim],
		ffn_gate: [hidden, dim],
		ffn_up: [hidden, dim],
		ffn_down: [dim, hidden],
	};
}

/** Numbers of the matrices that every token is multiplied with: all but the embedding's other rows. */
export function weightsOf(shape) {
	let n = shape.vocabulary * shape.dim;
	for (const [rows, columns] of Object.values(matricesOf(shape))) n += shape.layers * rows * columns;
	return n;
}

/** Bytes of weights that a step must read once, however many sequences it moves on. */
export function weightBytes(shape, type) {
	const { numbers, bytes } = types[type];
	return (weightsOf(shape) / numbers) * bytes;
}

/** Bytes of one state: a key and a value of every layer. @param {'f32' | 'f16'} dtype */
export function stateBytes({ dim, heads, kvHeads, layers }, dtype) {
	return 2 * layers * (dim / heads) * kvHeads * (dtype === 'f16' ? 2 : 4);
}
