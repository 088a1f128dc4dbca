import { blocks, type WeightType } from '../../lib/io/pretrained.js';

/** IEEE half to number: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
export function half(bits: number): number {
	const sign = bits & 0x8000 ? -1 : 1;
	const exponent = (bits >> 10) & 31;
	const fraction = bits & 1023;
	if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
	return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Writes the numbers of one block, which starts at byte `at`, from `out` on. */
type Block = (bytes: DataView, at: number, y: Float32Array, out: number) => void;

/** After ggml's documented layouts: plain loops, to be compared with. Each number is rounded to f32 once, at the end. */
const readers: Readonly<Record<WeightType, Block>> = {
	f32: (bytes, at, y, out) => {
		y[out] = bytes.getFloat32(at, true);
	},
	f16: (bytes, at, y, out) => {
		y[out] = half(bytes.getUint16(at, true));
	},
	bf16: (bytes, at, y, out) => {
		const wide = new DataView(new ArrayBuffer(4));
		wide.setUint16(0, bytes.getUint16(at, true)); // the upper half
		y[out] = wide.getFloat32(0);
	},
	q8_0: (bytes, at, y, out) => {
		const d = half(bytes.getUint16(at, true));
		for (let j = 0; j < 32; j++) y[out + j] = d * bytes.getInt8(at + 2 + j);
	},
	q4_0: (bytes, at, y, out) => {
		const d = half(bytes.getUint16(at, true));
		for (let j = 0; j < 16; j++) {
			const pair = bytes.getUint8(at + 2 + j);
			y[out + j] = d * ((pair & 15) - 8);
			y[out + 16 + j] = d * ((pair >> 4) - 8);
		}
	},
	q4_k: (bytes, at, y, out) => {
		const d = half(bytes.getUint16(at, true));
		const dmin = half(bytes.getUint16(at + 2, true));
		const scale = (j: number) => bytes.getUint8(at + 4 + j);
		for (let j = 0; j < 8; j++) {
			const [sc, m] =
				j < 4
					? [scale(j) & 63, scale(j + 4) & 63]
					: [(scale(j + 4) & 15) | ((scale(j - 4) >> 6) << 4), (scale(j + 4) >> 4) | ((scale(j) >> 6) << 4)];
			for (let l = 0; l < 32; l++) {
				const pair = bytes.getUint8(at + 16 + 32 * (j >> 1) + l);
				y[out + 32 * j + l] = d * sc * (j % 2 === 0 ? pair & 15 : pair >> 4) - dmin * m;
			}
		}
	},
	q6_k: (bytes, at, y, out) => {
		const d = half(bytes.getUint16(at + 208, true));
		for (let n = 0; n < 256; n++) {
			const [h, quarter, l] = [n >> 7, (n >> 5) & 3, n & 31];
			const low = bytes.getUint8(at + 64 * h + 32 * (quarter & 1) + l);
			const high = bytes.getUint8(at + 128 + 32 * h + l);
			const q = ((quarter < 2 ? low & 15 : low >> 4) | (((high >> (2 * quarter)) & 3) << 4)) - 32;
			y[out + n] = d * bytes.getInt8(at + 192 + 8 * h + 2 * quarter + (l >> 4)) * q;
		}
	},
};

/** The numbers that stored bytes stand for, whole blocks of any type. */
export function dequantize(type: WeightType, bytes: Uint8Array): Float32Array {
	const { numbers, bytes: size } = blocks[type];
	const count = bytes.byteLength / size;
	if (!Number.isInteger(count)) throw new RangeError(`dequantize: ${bytes.byteLength} bytes, expected a multiple of ${size} (${type})`);
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	const y = new Float32Array(count * numbers);
	for (let i = 0; i < count; i++) readers[type](view, i * size, y, i * numbers);
	return y;
}
