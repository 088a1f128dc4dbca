import type { Random } from '../../lib/random.js';

/** Numbers that sizes and counts break at. */
const edges = [
	0n,
	1n,
	2n,
	3n,
	7n,
	32n,
	255n,
	1025n,
	65_535n,
	2n ** 20n,
	2n ** 20n + 1n,
	2n ** 31n - 1n,
	2n ** 31n,
	2n ** 32n - 1n,
	2n ** 32n,
];
const wideEdges = [...edges, 2n ** 40n, 2n ** 53n, 2n ** 62n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 16n, 2n ** 64n - 1n];
const floats = [0, -0, 1, -1, 0.5, 1e-30, 1e30, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

const pick = <T>(random: Random, list: readonly T[]): T => list[random.integer(list.length)]!;

/** A copy of these bytes with one thing wrong, and what it is. */
export function mutated(random: Random, bytes: Uint8Array): { bytes: Buffer; what: string } {
	const copy = Buffer.from(bytes);
	const at = random.integer(copy.length);
	// Headers are made of words: most of the time one is hit as a whole.
	const word = Math.max(0, Math.min(copy.length - 8, at & ~3));
	switch (copy.length < 8 ? 0 : random.integer(7)) {
		case 0: {
			const bit = random.integer(8);
			copy[at]! ^= 1 << bit;
			return { bytes: copy, what: `bit ${bit} of byte ${at}` };
		}
		case 1: {
			const end = Math.min(copy.length, at + 1 + random.integer(16));
			for (let i = at; i < end; i++) copy[i] = random.integer(256);
			return { bytes: copy, what: `random bytes ${at} to ${end}` };
		}
		case 2: {
			const value = pick(random, edges);
			copy.writeUInt32LE(Number(value & 0xffffffffn), word);
			return { bytes: copy, what: `${value} as 32 bits at byte ${word}` };
		}
		case 3: {
			const place = random.integer(2) ? word : Math.min(at, copy.length - 8);
			const value = pick(random, wideEdges);
			copy.writeBigUInt64LE(value, place);
			return { bytes: copy, what: `${value} as 64 bits at byte ${place}` };
		}
		case 4: {
			const value = pick(random, floats);
			copy.writeFloatLE(value, word);
			return { bytes: copy, what: `the float ${value} at byte ${word}` };
		}
		case 5:
			return { bytes: copy.subarray(0, at), what: `cut at byte ${at}` };
		default: {
			// Bytes that are there once more, or no longer: all behind them is shifted.
			const end = Math.min(copy.length, at + 1 + random.integer(12));
			const twice = random.integer(2) === 1;
			const rest = copy.subarray(twice ? at : end);
			return {
				bytes: Buffer.concat([copy.subarray(0, twice ? end : at), rest]),
				what: `bytes ${at} to ${end} ${twice ? 'twice' : 'left out'}`,
			};
		}
	}
}

/** JSON that stands for nothing good, as text: not all of it can be made from values. */
const retyped = [
	...[
		'null',
		'true',
		'false',
		'""',
		'"x"',
		'"silu"',
		'"default"',
		'"dynamic"',
		'"toString"',
		'"../x.safetensors"',
		'[]',
		'[0]',
		'[-1, 2]',
		'{}',
	],
	...['0', '-0', '1', '-1', '2', '3', '0.5', '1e-400', '1e999', '-1e999', '1025', '1048576', '1048577', '2147483648', '4294967296'],
	...['9007199254740991', '9007199254740993', '1e300', '{"__proto__": {"a": 1}}', '{"rope_type": "yarn", "factor": 1e-300}', '[[[[]]]]'],
	...['{"type": "linear", "factor": -1}', '[{"a": []}]', `${'['.repeat(3000)}${']'.repeat(3000)}`],
];

/** JSON text with one key left out, doubled, renamed or given another value, at any depth. */
export function mutatedJson(random: Random, text: string): { text: string; what: string } {
	const document = JSON.parse(text) as unknown;
	const places: { owner: Record<string, unknown>; key: string }[] = [];
	const visit = (value: unknown): void => {
		if (typeof value !== 'object' || value === null) return;
		for (const key of Object.keys(value)) {
			places.push({ owner: value as Record<string, unknown>, key });
			visit((value as Record<string, unknown>)[key]);
		}
	};
	visit(document);
	const { owner, key } = pick(random, places);
	const marker = '@here@';
	const value = pick(random, retyped);
	switch (random.integer(5)) {
		case 0:
			if (Array.isArray(owner)) owner.splice(Number(key), 1);
			else delete owner[key];
			return { text: JSON.stringify(document), what: `without ${key}` };
		case 1: {
			if (Array.isArray(owner)) owner.push(owner[Number(key)]);
			else owner[marker] = value;
			const twice = JSON.stringify(document).replace(JSON.stringify(marker), () => JSON.stringify(key));
			return { text: twice.replace(JSON.stringify(value), () => value), what: `${key} twice, then ${value.slice(0, 30)}` };
		}
		case 2: {
			const name = pick(random, ['__proto__', 'constructor', '', 'rope_parameters', 'rope_scaling', 'head_dim', 'dtype', 'weight_map']);
			Object.defineProperty(owner, name, { value: owner[key], enumerable: true, configurable: true, writable: true });
			delete owner[key];
			return { text: JSON.stringify(document), what: `${key} is called ${name}` };
		}
		default:
			owner[key] = marker;
			return { text: JSON.stringify(document).replace(JSON.stringify(marker), () => value), what: `${key} is ${value.slice(0, 30)}` };
	}
}
