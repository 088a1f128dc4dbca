import { describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices } from '../lib/device.js';
import { operations, type Parameter, runtime } from './contract.js';
import { generator, isSlow } from './harness.js';

type Native = ((...values: unknown[]) => unknown) & { readonly signature?: string };
const exported = binding as unknown as Readonly<Record<string, Native>>;

describe('binding.d.ts is what the addon exports', () => {
	test('the page is read', () => {
		expect(operations.size).toBeGreaterThan(20);
		expect(runtime.size).toBeGreaterThan(8);
		expect(operations.get('linear')!.map(({ words }) => words)).toEqual(['in f32', 'in f32', 'in? f32', 'out f32', 'int', 'int', 'int']);
	});

	test.each([...operations.keys()])('%s, parameter by parameter', (name) => {
		expect(exported[name]?.signature).toBe(
			operations
				.get(name)!
				.map(({ words }) => words)
				.join(', '),
		);
	});

	test.each([...runtime.keys()])('%s', (name) => {
		expect(exported[name]).toBeTypeOf('function');
		expect(exported[name]!.signature).toBeUndefined();
	});

	test('and nothing else', () => {
		expect(Object.keys(binding).sort()).toEqual([...operations.keys(), ...runtime.keys()].sort());
	});
});

/** Calls of `fn` that throw must throw one of our errors: a class with a `code`. */
function attempt(fn: () => unknown): void {
	try {
		const result = fn();
		if (result instanceof Promise) result.catch(() => undefined); // a queued failure: its kind is test/runtime.test.ts's subject
	} catch (error) {
		expect((error as { code?: unknown }).code, String(error)).toMatch(/^ERR_(ARGUMENT|SHAPE|DISPOSED|DEVICE|OUT_OF_MEMORY)$/);
	}
}

/** Sizes that products of must not be believed: negative, and such that their products pass 2⁶⁴. */
const sizes = [0, 1, 1, 2, 2, 3, 4, 8, -1, 2 ** 31, 2 ** 32, 2 ** 33 + 1, 2 ** 52, 2 ** 53 - 1, -(2 ** 53) + 1];
const junk = [
	undefined,
	null,
	NaN,
	Infinity,
	-Infinity,
	0.5,
	-1,
	1e300,
	2 ** 30,
	'x',
	'',
	true,
	false,
	{},
	[],
	() => 0,
	Symbol('x'),
	10n,
	new Float32Array(3),
];

describe.each(devices().map(({ name }) => name))('wrong arguments never end the process: %s', (device) => {
	const random = generator(11);
	const pick = <T>(list: readonly T[]): T => list[Math.floor(((random() + 1) / 2) * list.length)]!;
	const rounds = isSlow(device) ? 60 : 600;
	const buffers = () => [0, 1, 3, 8, 64, 64, 64].map((n) => binding.create(device, 4 * n, new Int32Array(n).fill(1)));

	/** Call an operation, with buffers that no failed call has marked: a marked one keeps the next call from running. */
	function call(name: string, held: ReturnType<typeof buffers>, argument: (parameter: Parameter, index: number) => unknown): void {
		for (const [i, n] of [0, 1, 3, 8, 64, 64, 64].entries()) binding.write(held[i]!, new Int32Array(n).fill(1));
		attempt(() => exported[name]!(...operations.get(name)!.map(argument)));
	}

	async function works(): Promise<void> {
		const x = binding.create(device, 8, new Float32Array([1, 2]));
		binding.scale(x, x, 3, 2);
		expect([...new Float32Array(await binding.read(x))]).toEqual([3, 6]);
		binding.dispose(x);
	}

	test.each([...operations.keys()])('%s', async (name) => {
		const held = buffers();
		const gone = binding.create(device, 64, null);
		binding.dispose(gone);
		const parameters = operations.get(name)!;
		const random01 = () => (random() + 1) / 2;
		const right = ({ words }: Parameter) => {
			if (words === 'int') return pick(sizes);
			if (words === 'float') return pick([0, 1, -1, 0.5, NaN, Infinity, 1e300]);
			if (words === 'bool') return pick([true, false]);
			return words.includes('?') && random() < 0 ? null : pick(held);
		};
		const fitting = ({ words }: Parameter) => {
			if (words === 'int') return pick([1, 1, 2]);
			if (words === 'float') return 0.5;
			if (words === 'bool') return pick([true, false]);
			return words.includes('?') && random() < 0 ? null : pick(held.slice(-3));
		};
		for (let round = 0; round < rounds; round++) {
			call(name, held, () => pick([...held, gone, ...sizes, ...junk])); // whatever anywhere
			call(name, held, right); // the right kinds, with sizes that do not fit
			const at = Math.floor(random01() * parameters.length);
			call(name, held, (parameter, i) => (i === at ? right(parameter) : fitting(parameter))); // one that does not fit
			const size = pick(sizes);
			const share = pick([0.5, 0.8, 1]); // sizes whose products overflow, together or with others that fit
			call(name, held, (parameter) => (parameter.words === 'int' && random01() < share ? size : fitting(parameter)));
		}
		// The wrong number of arguments.
		attempt(() => exported[name]!());
		attempt(() => exported[name]!(...operations.get(name)!.map(() => held[4]), 1, 2, 3));
		for (const buffer of held) {
			binding.dispose(buffer);
			binding.dispose(buffer);
		}
		await works();
	});

	test.each([...runtime.keys()].filter((name) => name !== 'errors'))('%s', async (name) => {
		const held = buffers();
		// Not devices' names that exist (a queue each), and no memory that a machine might have.
		const values = [
			...held,
			...junk.filter((value) => value !== 2 ** 30),
			'cuda:99',
			'cpu:0x',
			0,
			1,
			4,
			2 ** 52,
			new Uint8Array(4),
			new DataView(new ArrayBuffer(8)),
		];
		for (let round = 0; round < rounds; round++) {
			const count = Math.floor(((random() + 1) / 2) * 4);
			attempt(() => exported[name]!(...Array.from({ length: count }, () => pick(values))));
		}
		const bytes = [-1, 0, 1, 4, 12, 0.5, NaN, Infinity, 2 ** 52, 1e300, '4', null, undefined];
		for (let round = 0; round < rounds && name === 'create'; round++) attempt(() => exported[name]!(device, pick(bytes), pick(values)));
		for (const buffer of held) binding.dispose(buffer);
		binding.setThreads(0);
		await works();
	});
});
