/** The high and the low half of a 32 × 32 bit product. */
function product(a: number, b: number): [number, number] {
	const low = (a & 0xffff) * (b & 0xffff);
	const middle1 = (a >>> 16) * (b & 0xffff) + (low >>> 16);
	const middle2 = (a & 0xffff) * (b >>> 16) + (middle1 & 0xffff);
	return [((a >>> 16) * (b >>> 16) + Math.floor(middle1 / 65536) + Math.floor(middle2 / 65536)) >>> 0, Math.imul(a, b) >>> 0];
}

/**
 * Philox4x32-10, a counter-based generator: four words that are a function of their place alone, the same numbers as
 * native/ops/dropout.h makes.
 * @param seed an integer in [0, 2⁵³) @param block which four, in [0, 2⁵³) @param stream an integer in [0, 2³²)
 * @see Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.2
 */
export function philox(seed: number, block: number, stream = 0): [number, number, number, number] {
	let [c0, c1, c2, c3] = [block >>> 0, Math.floor(block / 2 ** 32) >>> 0, stream >>> 0, 0];
	let [k0, k1] = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
	for (let round = 0; round < 10; round++) {
		const [high0, low0] = product(0xd2511f53, c0);
		const [high1, low1] = product(0xcd9e8d57, c2);
		[c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
		k0 = (k0 + 0x9e3779b9) >>> 0;
		k1 = (k1 + 0xbb67ae85) >>> 0;
	}
	return [c0, c1, c2, c3];
}
