import { blocks, type WeightType } from '../../lib/io/pretrained.js';
import { half } from './dequantize.js';

const wide = new DataView(new ArrayBuffer(4));

/** The nearest IEEE half, ties to even; what is too large becomes infinite. */
export function halfBits(value: number): number {
	const size = Math.abs(value);
	const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
	if (Number.isNaN(value)) return 0x7e00;
	if (size >= 65520) return sign | 0x7c00;
	const exponent = size < 2 ** -14 ? -14 : Math.floor(Math.log2(size));
	const unit = 2 ** (exponent - 10);
	const steps = Math.floor(size / unit); // exact: unit is a power of two
	const rest = size / unit - steps;
	const rounded = steps + (rest > 0.5 || (rest === 0.5 && steps % 2 === 1) ? 1 : 0);
	// 1024 steps are the leading bit, and 2048 of them run over into the exponent just as they should.
	return sign | (rounded + ((exponent + 14) << 10));
}

/** The nearest brain float, ties to even. */
export function brainBits(value: number): number {
	wide.setFloat32(0, value);
	const bits = wide.getUint32(0);
	return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Writes the block of the numbers from `x[from]` on to byte `at`. */
type Block = (x: Float32Array, from: number, bytes: DataView, at: number) => void;

const clamp = (n: number, least: number, most: number) => Math.min(Math.max(n, least), most);

/** The number of largest size, with its sign. */
function extreme(x: Float32Array, from: number, count: number): number {
	let most = 0;
	for (let i = from; i < from + count; i++) if (Math.abs(x[i]!) > Math.abs(most)) most = x[i]!;
	return most;
}

/** A scale as it is stored, and what to multiply by to undo it. */
function storedScale(bytes: DataView, at: number, d: number): number {
	bytes.setUint16(at, halfBits(d), true);
	return d === 0 ? 0 : 1 / d;
}

/**
 * Blocks of ggml's layouts. q8_0 and q4_0 choose their scale as ggml does; q4_k and q6_k take the scale that just spans the numbers and do
 * not search for a better one, as ggml does, so that their errors are somewhat larger.
 */
const writers: Readonly<Record<WeightType, Block>> = {
	f32: (x, from, bytes, at) => bytes.setFloat32(at, x[from]!, true),
	f16: (x, from, bytes, at) => bytes.setUint16(at, halfBits(x[from]!), true),
	bf16: (x, from, bytes, at) => bytes.setUint16(at, brainBits(x[from]!), true),
	q8_0: (x, from, bytes, at) => {
		const inverse = storedScale(bytes, at, Math.abs(extreme(x, from, 32)) / 127);
		for (let j = 0; j < 32; j++) bytes.setInt8(at + 2 + j, roundAway(x[from + j]! * inverse));
	},
	q4_0: (x, from, bytes, at) => {
		const inverse = storedScale(bytes, at, extreme(x, from, 32) / -8);
		const nibble = (j: number) => Math.min(15, Math.trunc(x[from + j]! * inverse + 8.5));
		for (let j = 0; j < 16; j++) bytes.setUint8(at + 2 + j, nibble(j) | (nibble(j + 16) << 4));
	},
	q4_k: (x, from, bytes, at) => {
		const parts = Array.from({ length: 8 }, (_, j) => {
			const part = x.subarray(from + 32 * j, from + 32 * j + 32);
			const least = Math.min(0, ...part);
			return { scale: (Math.max(0, ...part) - least) / 15, min: -least };
		});
		const toScale = storedScale(bytes, at, Math.max(...parts.map(({ scale }) => scale)) / 63);
		const toMin = storedScale(bytes, at + 2, Math.max(...parts.map(({ min }) => min)) / 63);
		const d = half(bytes.getUint16(at, true));
		const dmin = half(bytes.getUint16(at + 2, true));
		parts.forEach(({ scale, min }, j) => {
			const sc = clamp(Math.round(scale * toScale), 0, 63);
			const m = clamp(Math.round(min * toMin), 0, 63);
			const or = (byte: number, bits: number) => bytes.setUint8(at + 4 + byte, bytes.getUint8(at + 4 + byte) | bits);
			if (j < 4) {
				or(j, sc);
				or(j + 4, m);
			} else {
				or(j + 4, (sc & 15) | ((m & 15) << 4));
				or(j - 4, (sc >> 4) << 6);
				or(j, (m >> 4) << 6);
			}
			for (let l = 0; l < 32; l++) {
				const q = d * sc === 0 ? 0 : clamp(Math.round((x[from + 32 * j + l]! + dmin * m) / (d * sc)), 0, 15);
				const place = at + 16 + 32 * (j >> 1) + l;
				bytes.setUint8(place, bytes.getUint8(place) | (j % 2 === 0 ? q : q << 4));
			}
		});
	},
	q6_k: (x, from, bytes, at) => {
		const scales = Array.from({ length: 16 }, (_, j) => extreme(x, from + 16 * j, 16) / -32);
		const toScale = storedScale(bytes, at + 208, extreme(Float32Array.from(scales), 0, 16) / -128);
		const d = half(bytes.getUint16(at + 208, true));
		for (let j = 0; j < 16; j++) {
			const sc = clamp(Math.round(scales[j]! * toScale), -128, 127);
			bytes.setInt8(at + 192 + j, sc);
			for (let n = 16 * j; n < 16 * j + 16; n++) {
				const q = d * sc === 0 ? 32 : clamp(Math.round(x[from + n]! / (d * sc)), -32, 31) + 32;
				const [h, quarter, l] = [n >> 7, (n >> 5) & 3, n & 31];
				const low = at + 64 * h + 32 * (quarter & 1) + l;
				const high = at + 128 + 32 * h + l;
				bytes.setUint8(low, bytes.getUint8(low) | ((q & 15) << (quarter < 2 ? 0 : 4)));
				bytes.setUint8(high, bytes.getUint8(high) | ((q >> 4) << (2 * quarter)));
			}
		}
	},
};

/** To the nearest, halves away from 0, as C rounds. */
function roundAway(value: number): number {
	return Math.sign(value) * Math.round(Math.abs(value));
}

/** Numbers as bytes of a type; there must be whole blocks of them. */
export function quantize(type: WeightType, x: Float32Array): Uint8Array {
	const { numbers, bytes: size } = blocks[type];
	const count = x.length / numbers;
	if (!Number.isInteger(count)) throw new RangeError(`quantize: ${x.length} numbers, expected a multiple of ${numbers} (${type})`);
	const bytes = new Uint8Array(count * size);
	const view = new DataView(bytes.buffer);
	for (let i = 0; i < count; i++) writers[type](x, i * numbers, view, i * size);
	return bytes;
}
