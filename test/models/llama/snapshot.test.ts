import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { full, h2o, type Policy, tova, window } from '../../../lib/cache/index.js';
import { memory, synchronize, trim } from '../../../lib/device.js';
import { ArgumentError, FormatError } from '../../../lib/errors.js';
import { Llama } from '../../../lib/models/llama.js';
import { Session } from '../../../lib/models/session.js';
import { Random } from '../../../lib/random.js';
import { made, pathOf, published, tokensFor } from './models.js';

let model: Llama;
let other: Llama;
let tokens: number[];

beforeAll(async () => {
	model = await Llama.load(await pathOf(published ? 'stories260K' : 'made'));
	other = await Llama.load(await made(6));
	tokens = [...(await tokensFor(model, 400, 51))];
});

afterAll(() => {
	model.dispose();
	other.dispose();
});

const caches = (): [string, Policy | Policy[]][] => [
	['full', full()],
	['window', window(20, { sinks: 2 })],
	['tova', tova(20)],
	['h2o', h2o(21)],
	['one each', Array.from({ length: model?.config.layers ?? (published ? 5 : 3) }, (_, i) => [full(), tova(9), h2o(7), window(8)][i % 4]!)],
];

interface Header {
	batch: number;
	length: number;
	kind: string;
	tensors: { name: string; shape: number[]; offset: number }[];
	parts: Header[];
	about: { model: string; seen: number[]; positions: string; dtype: string; policies: Record<string, unknown>[] };
}

const FIXED = 16;
const CHECKSUM = 32;

/** The snapshot with another checksum: that of what is in it now. */
function sealed(bytes: Uint8Array): Uint8Array {
	const end = bytes.length - CHECKSUM;
	const out = Uint8Array.from(bytes);
	out.set(createHash('sha256').update(out.subarray(0, end)).digest(), end);
	return out;
}

/** The snapshot with another header or other numbers, and the checksum that fits. */
function altered(blob: Uint8Array, alter: (header: Header, ints: Int32Array) => void): Uint8Array {
	const bytes = Buffer.from(blob);
	const start = FIXED + bytes.readUInt32LE(12);
	const header: Header = JSON.parse(bytes.toString('utf8', FIXED, start));
	const data = Uint8Array.from(bytes.subarray(start, -CHECKSUM));
	alter(header, new Int32Array(data.buffer));
	const text = Buffer.from(JSON.stringify(header));
	const fixed = Buffer.from(bytes.subarray(0, FIXED));
	fixed.writeUInt32LE(text.length, 12);
	return sealed(Buffer.concat([fixed, text, data, Buffer.alloc(CHECKSUM)]));
}

const tensorOf = (header: Header, layer: number, name: string) => header.parts[layer]!.tensors.find((tensor) => tensor.name === name)!;

async function after(cache: Policy | Policy[], positions: 'original' | 'cache', count = 60): Promise<Uint8Array> {
	using session = model.session({ cache, positions });
	await session.append(tokens.slice(0, count));
	return await session.snapshot();
}

describe.each(['original', 'cache'] as const)('positions: %s', (positions) => {
	describe.each(['f32', 'f16'] as const)('%s', (dtype) => {
		test.each(caches())('%s: goes on to the same bits', async (_, cache) => {
			for (const count of [0, 5, 300]) {
				using session = model.session({ cache, positions, dtype });
				await session.append(tokens.slice(0, count));
				const blob = await session.snapshot();
				using back = await Session.restore(model, blob);
				expect([back.position, back.positions, back.dtype, back.bytes]).toEqual([count, positions, dtype, session.bytes]);
				expect(await back.next([])).toEqual(await session.next([]));
				for (const list of [[3], tokens.slice(300, 330), [4, 5]]) expect(await back.next(list)).toEqual(await session.next(list));
				for (let layer = 0; layer < model.config.layers; layer++) {
					for (let g = 0; g < model.config.kvHeads; g++) expect(await back.kept(layer, g)).toEqual(await session.kept(layer, g));
				}
				expect(Buffer.compare(await back.snapshot(), await session.snapshot())).toBe(0);
			}
		});
	});

	test('several sequences of different lengths', async () => {
		const cache = caches().at(-1)![1];
		using session = model.session({ cache, positions, batch: 3 });
		await session.append([tokens.slice(0, 40), [], tokens.slice(9, 14)]);
		using back = await Session.restore(model, await session.snapshot());
		expect(back.sequencePositions).toEqual(session.sequencePositions);
		expect(await back.next([[5], [6], []])).toEqual(await session.next([[5], [6], []]));
	});
});

test('a policy that is a function is given again', async () => {
	const cache: Policy = { ...tova(9), score: ({ scores, received }) => scores.set(received) };
	using session = model.session({ cache });
	await session.append(tokens.slice(0, 30));
	const blob = await session.snapshot();
	await expect(Session.restore(model, blob)).rejects.toThrow(FormatError);
	using back = await Session.restore(model, blob, { cache });
	expect(await back.next([7])).toEqual(await session.next([7]));
});

test('another model, other policies, other bytes are refused', async () => {
	const blob = await after(tova(20), 'original');
	await expect(Session.restore(other, blob)).rejects.toThrow(FormatError);
	for (const length of [0, 1, 15, 47, 48, 100, blob.length - 33, blob.length - 1]) {
		await expect(Session.restore(model, blob.subarray(0, length)), `${length} bytes`).rejects.toThrow(FormatError);
	}
	const random = new Random(1);
	for (let i = 0; i < 100; i++) {
		const changed = Uint8Array.from(blob);
		changed[random.integer(blob.length)]! ^= 1 << random.integer(8);
		await expect(Session.restore(model, changed)).rejects.toThrow(FormatError);
	}
	for (const wrong of [null, undefined, 'OPLUSNAP', {}, [1, 2], new Float32Array(100)]) {
		await expect((async () => Session.restore(model, wrong as Uint8Array))(), String(wrong)).rejects.toThrow(FormatError);
	}
	using same = await Session.restore(model, blob, { cache: tova(20) });
	expect(same.position).toBe(60);
});

test.each<[string, Policy]>([
	['another size', tova(21)],
	['a size of its own', full()],
	['heads of their own', h2o(20)],
	['another score', window(20)],
	['other sinks', tova(20, { sinks: 4 })],
	['a function', { ...tova(20), score: () => {} }],
])('what it ran under is refused if it is given otherwise: %s', async (_, cache) => {
	const blob = await after(tova(20), 'cache');
	await expect(Session.restore(model, blob, { cache })).rejects.toThrow(/snapshot|cache/);
});

const lies: [string, (header: Header, ints: Int32Array) => void][] = [
	['kind', (header) => (header.kind = 'state')],
	['model', (header) => (header.about.model = 'x')],
	['no about', (header) => delete (header as Partial<Header>).about],
	['a position below 0', (header, ints) => (ints[tensorOf(header, 1, 'positions').offset] = -1)],
	['a position to come', (header, ints) => (ints[tensorOf(header, 1, 'positions').offset + 3] = 60)],
	['a rank below 0', (header, ints) => (ints[tensorOf(header, 0, 'ranks').offset] = -1)],
	['a rank past the cache', (header, ints) => (ints[tensorOf(header, 2, 'ranks').offset + 19] = 20)],
	['a rank far out', (header, ints) => (ints[tensorOf(header, 2, 'ranks').offset + 19] = 2 ** 31 - 1)],
	['no ranks', (header) => header.parts[0]!.tensors.pop()],
	['fewer keys', (header) => (tensorOf(header, 0, 'keys').shape = [1])],
	['keys past the end', (header) => (tensorOf(header, 0, 'keys').offset = 2 ** 31)],
	['other slots', (header) => (header.parts[1]!.length = 19)],
	['a layer less', (header) => header.parts.pop()],
	['a layer more', (header) => header.parts.push(header.parts[0]!)],
	['a policy less', (header) => header.about.policies.pop()],
	['another batch', (header) => (header.batch = 2)],
	['two sequences', (header) => Object.assign(header, { batch: 2, about: { ...header.about, seen: [60, 60] } })],
	['no such positions', (header) => (header.about.positions = 'relative')],
	['another type', (header) => (header.about.dtype = 'f16')],
	['a length below 0', (header) => (header.about.seen = [-1])],
	['a length that is no integer', (header) => (header.about.seen = [1.5])],
	['fewer logits', (header) => (header.tensors[0]!.shape = [3])],
	['a size of 19', (header) => (header.about.policies[0]!.size = 19)],
	['no size', (header) => (header.about.policies[0]!.size = null)],
	['a size that is text', (header) => (header.about.policies[0]!.size = '20')],
	['heads of their own', (header) => (header.about.policies[0]!.heads = 'own')],
	['a policy that is none', (header) => (header.about.policies[0] = 7 as never)],
	['a score that is none', (header) => (header.about.policies[0]!.score = 'constructor')],
];

test.each(lies)('a lie with a checksum that fits is refused: %s', async (_, alter) => {
	const blob = altered(await after(tova(20), 'cache'), alter);
	await expect(Session.restore(model, blob)).rejects.toThrow(FormatError);
});

test('what is refused leaves no memory behind', async () => {
	const settled = async () => {
		await synchronize();
		return memory().bytes;
	};
	const blob = await after(tova(20), 'cache');
	const before = await settled();
	for (const [what, alter] of lies) {
		await expect(Session.restore(model, altered(blob, alter)), what).rejects.toThrow(FormatError);
		expect(await settled(), what).toBe(before);
	}
});

test('two slots of one rank or position, or a position that was never free, are refused or harmless', async () => {
	for (const name of ['ranks', 'positions']) {
		const blob = altered(await after(tova(20), 'cache'), (header, ints) => {
			const { offset } = tensorOf(header, 0, name);
			ints.fill(7, offset, offset + 20);
		});
		const session = await Session.restore(model, blob).catch((error: unknown) => error);
		if (session instanceof Session) {
			for (const token of tokens.slice(0, 50)) expect((await session.next([token])).every(Number.isFinite)).toBe(true);
			session.dispose();
		} else expect(session).toBeInstanceOf(FormatError);
	}
});

test('a length at the end of what fits in 32 bits is refused, or the session says where it ends', async () => {
	for (const cache of [tova(20), window(20, { sinks: 2 }), h2o(21)]) {
		const blob = altered(await after(cache, 'cache'), (header) => (header.about.seen = [2 ** 31 - 3]));
		const restored = await Session.restore(model, blob).catch((error: unknown) => error);
		if (!(restored instanceof Session)) {
			expect(restored).toBeInstanceOf(FormatError);
			continue;
		}
		const failed = await restored.append(tokens.slice(0, 10)).catch((error: unknown) => error);
		expect(failed).toBeInstanceOf(Error);
		restored.dispose();
	}
});

test('nothing is made for a size that the bytes do not bear out', async () => {
	for (const lie of [
		(header: Header) => Object.assign(header.about, { policies: header.about.policies.map((policy) => ({ ...policy, size: 200_000 })) }),
		(header: Header) => Object.assign(header, { batch: 10_000, about: { ...header.about, seen: Array(10_000).fill(60) } }),
	]) {
		const blob = altered(await after(tova(20), 'cache'), lie);
		await synchronize();
		trim();
		const before = memory().bytes;
		await expect(Session.restore(model, blob)).rejects.toThrow(FormatError);
		const most = memory().peakBytes;
		expect(most - before, `${blob.length} bytes took ${most - before}`).toBeLessThan(2 ** 24);
	}
});

test('mutations whose checksum fits: refused, or a session that works', async () => {
	const blobs: Uint8Array[] = [];
	for (const [, cache] of caches()) for (const positions of ['original', 'cache'] as const) blobs.push(await after(cache, positions, 30));
	const random = new Random(3);
	let [refused, working] = [0, 0];
	for (let i = 0; i < 1500; i++) {
		const bytes = Uint8Array.from(blobs[random.integer(blobs.length)]!);
		const header = FIXED + new DataView(bytes.buffer).getUint32(12, true);
		for (let n = 1 + random.integer(3); n > 0; n--) {
			// The header more often than its share of the bytes. Digits of one more place would ask for gigabytes: see the test above.
			const at = random.integer(2) ? FIXED + random.integer(header - FIXED) : random.integer(bytes.length - CHECKSUM);
			const digit = bytes[at]! >= 48 && bytes[at]! <= 57;
			bytes[at] = digit && random.integer(4) ? 48 + random.integer(10) : random.integer(256);
		}
		const session = await Session.restore(model, sealed(bytes)).catch((error: unknown) => error);
		if (session instanceof Session) {
			const found = await session.append(tokens.slice(0, 4)).catch((error: unknown) => error);
			if (found !== undefined) expect(found).toBeInstanceOf(Error);
			await session.kept(0);
			session.dispose();
			working++;
		} else {
			if (!(session instanceof FormatError || session instanceof ArgumentError)) throw session;
			refused++;
		}
	}
	expect(refused).toBeGreaterThan(300);
	expect(working).toBeGreaterThan(300);
});
