/** Caches and calls of cacheAttend for tests that do not go by a description. */
import { binding } from '../lib/binding.js';
import type { DeviceName } from '../lib/device.js';
import { Tensor } from '../lib/tensor.js';
import { generator } from './harness.js';

/** As binding.d.ts names them. */
export interface Sizes {
	B: number;
	T: number;
	H: number;
	G: number;
	D: number;
	S: number;
	P: number;
	kind: number;
}

export interface Rules {
	rule: number;
	sinks: number;
	recent: number;
	keep: number;
	reach: number;
	neighbours: boolean;
}

/** The tensors of one layer's cache. */
export interface Cache {
	readonly keys: Tensor;
	readonly values: Tensor;
	readonly positions: Tensor;
	readonly scores: Tensor;
	readonly ranks: Tensor | null;
}

export interface Token {
	q: Tensor;
	k: Tensor;
	v: Tensor;
	seen: Tensor;
	table?: Tensor | null;
	lengths?: Tensor | null;
	received?: Tensor | null;
	o: Tensor;
}

const unbounded = 2 ** 31 - 1;
/** The least attended goes, whatever it is. */
export const rules: Rules = { rule: 2, sinks: 0, recent: 0, keep: 0, reach: unbounded, neighbours: false };

/** What makes and calls them on a device. */
export function callsOn(device: DeviceName) {
	const floats = (data: ArrayLike<number>) => Tensor.empty([data.length], device, 'f32', Float32Array.from(data));
	const ints = (data: ArrayLike<number>) => Tensor.empty([data.length], device, 'i32', Int32Array.from(data));

	/** A cache with nothing in it. */
	function empty({ B, G, D, S, P, kind }: Sizes, turned = false): Cache {
		const rows = () => Tensor.empty([B, S, G, D], device, kind ? 'f16' : 'f32', new Uint8Array(B * S * G * D * (kind ? 2 : 4)).fill(0xff));
		return {
			keys: rows(),
			values: rows(),
			positions: ints(new Int32Array(B * P * S).fill(-7)),
			scores: floats(new Float32Array(B * P * S).fill(NaN)),
			ranks: turned ? ints(new Int32Array(B * P * S).fill(-7)) : null,
		};
	}
	function attend({ keys, values, positions, scores, ranks }: Cache, token: Token, n: Sizes, r: Rules): void {
		const { q, k, v, seen, table, lengths, o, received } = token;
		const before = [q.buffer, k.buffer, v.buffer, keys.buffer, values.buffer, positions.buffer, scores.buffer] as const;
		const others = [
			ranks?.buffer ?? null,
			table?.buffer ?? null,
			seen.buffer,
			lengths?.buffer ?? null,
			o.buffer,
			received?.buffer ?? null,
		] as const;
		const sizes = [n.B, n.T, n.H, n.G, n.D, n.S, n.P] as const;
		binding.cacheAttend(...before, ...others, ...sizes, r.rule, r.sinks, r.recent, r.keep, r.reach, n.kind, r.neighbours);
	}

	/** Random tokens from position `seen` on. */
	function tokens({ B, T, H, G, D }: Sizes, seed: number, seen: number): Token {
		const random = generator(seed);
		const of = (heads: number) => floats(Float32Array.from({ length: B * T * heads * D }, () => 2 * random()));
		return { q: of(H), k: of(G), v: of(G), seen: ints(new Int32Array(B).fill(seen)), o: floats(new Float32Array(B * T * H * D)) };
	}

	/** All bits of a cache. */
	async function bits(cache: Cache): Promise<Record<string, number[]>> {
		const all: Record<string, number[]> = {};
		for (const [name, tensor] of Object.entries(cache)) {
			if (!tensor) continue;
			const numbers = await tensor.read();
			all[name] = [...new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength)];
		}
		return all;
	}

	return { floats, ints, empty, attend, tokens, bits };
}
