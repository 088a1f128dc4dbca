import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { binding } from '../lib/binding.js';
import { devices, memory, setThreads, synchronize, trim } from '../lib/device.js';
import { ArgumentError, ShapeError } from '../lib/errors.js';
import * as ops from '../lib/ops/index.js';
import { persist, scope, Tensor, tensor } from '../lib/tensor.js';
import { isSlow } from './harness.js';

const gc = (globalThis as { gc?: () => void }).gc!; // --expose-gc: vitest.config.mts
afterAll(() => setThreads(0));

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	/** Steps that take long on an emulated device are fewer there. */
	const steps = (n: number) => (isSlow(device) ? Math.ceil(n / 100) : n);
	const of = (data: readonly number[], shape: readonly number[]) => tensor(data, shape, { device });

	/** Everything queued has run, and what other tests dropped is freed. */
	async function settled(): Promise<void> {
		await synchronize(device);
		for (let still = 0, last = -1; still < 3; last = memory(device).buffers) {
			gc();
			await sleep(5);
			still = memory(device).buffers === last ? still + 1 : 0;
		}
	}

	describe('work that fails in the queue', () => {
		test('rejects the read with the name of the operation, and the tensor is usable again', async () => {
			const x = of([1, 2, 3], [3]);
			const y = Tensor.empty([3], device);
			binding.scale(x.buffer, y.buffer, 2, 1000);
			const failed = await Promise.resolve(y.read()).catch((error: unknown) => error);
			expect(failed).toBeInstanceOf(ShapeError);
			expect((failed as Error).message).toMatch(/^scale: .*holds 3 elements, expected 1000/);
			expect(failed).toMatchObject({ code: 'ERR_SHAPE' });
			binding.scale(x.buffer, y.buffer, 2, 3);
			expect([...(await y.read())]).toEqual([2, 4, 6]);
			expect([...(await x.read())]).toEqual([1, 2, 3]);
		});

		test('is told by everything that was made from it: the first failure', async () => {
			const x = of([1, 2, 3], [3]);
			const y = Tensor.empty([3], device);
			binding.add(x.buffer, x.buffer, y.buffer, 1, 50);
			const z = ops.scale(ops.mul(y, x), 2);
			await expect(z.read()).rejects.toThrow(/^add: /);
			await expect(z.read()).rejects.toThrow(/^add: /); // asking again does not change it
			const fine = ops.scale(x, 2);
			expect([...(await fine.read())]).toEqual([2, 4, 6]);
		});

		test('a write mends what failed', async () => {
			const y = Tensor.empty([2], device);
			binding.fill(y.buffer, 1, 3);
			await expect(y.read()).rejects.toThrow(/^fill: /);
			y.write(Float32Array.of(5, 6));
			expect([...(await y.read())]).toEqual([5, 6]);
		});

		test('behind other work as well as at once', async () => {
			const n = isSlow(device) ? 8 : 500;
			const a = ops.zeros([n, n], device);
			const slow = ops.matmul(a, a);
			const y = Tensor.empty([2], device);
			binding.matmul(slow.buffer, a.buffer, y.buffer, n, n, n, false, false);
			await expect(y.read()).rejects.toThrow(/^matmul: `y` holds 2 elements/);
			expect((await slow.read()).every((each) => each === 0)).toBe(true);
		});
	});

	test.runIf(device === 'cpu')('timers tick while the queue is full of work', async () => {
		// Results go to memory that is there already: taking fresh memory is the caller's time.
		const n = 768;
		const [B, T, H, D] = [8, 2000, 8, 64];
		const [a, y] = [ops.zeros([n, n], device), ops.zeros([n, n], device)];
		const [s, v, o] = [ops.zeros([B, T, H], device), ops.zeros([B, T, H, D], device), ops.zeros([B, T, H, D], device)];
		const [m, u, w] = [ops.zeros([B, H], device), ops.zeros([B, H], device), ops.zeros([B, H, D], device)];
		await synchronize(device);
		let ended = false;
		let longest = 0;
		let ticks = 0;
		const begin = performance.now();
		const done = (() => {
			for (let i = 0; i < 40; i++) {
				binding.scan(s.buffer, v.buffer, null, null, null, null, o.buffer, null, m.buffer, u.buffer, w.buffer, B, T, H, H, D, false);
				binding.matmul(a.buffer, a.buffer, y.buffer, n, n, n, false, false);
			}
			return y.read();
		})();
		const queued = performance.now() - begin;
		void done.then(() => {
			ended = true;
		});
		let before = performance.now();
		while (!ended) {
			await sleep(1);
			const now = performance.now();
			longest = Math.max(longest, now - before);
			before = now;
			ticks++;
		}
		const seconds = (performance.now() - begin) / 1000;
		// One operation takes seconds / 80. Were the thread held for the whole queue, the gap would be all of it.
		expect(queued / 1000).toBeLessThan(seconds / 4);
		expect(longest / 1000).toBeLessThan(seconds / 4);
		expect(ticks).toBeGreaterThan(20);
	});

	test('memory is where it was after many training steps', async () => {
		const [w, b] = [of([1, 2, 3, 4, 5, 6], [2, 3]), of([0, 1], [2])];
		const moments = [w, b].map((p) => [ops.zeros(p.shape, device), ops.zeros(p.shape, device)] as const);
		for (const p of [w, b]) p.requiresGrad = true;
		const x = of([1, -1, 0.5, 2, 0, 1], [2, 3]);
		const y = of([1, 0, 0, 1], [2, 2]);
		let step = 0;
		const train = () => {
			step++;
			scope(() => {
				const hidden = ops.dropout(ops.gelu(ops.linear(x, w, b)), { rate: 0.1, seed: step });
				ops.meanSquaredError(hidden, y).backward();
			});
			[w, b].forEach((p, i) => {
				const [m, v] = moments[i]!;
				ops.adamw(p, p.grad!, m, v, { rate: 1e-3, step });
				p.grad!.dispose();
				p.grad = null;
			});
		};
		train();
		await settled();
		const before = memory(device);
		for (let i = 0; i < steps(10_000); i++) {
			train();
			if (i % 500 === 0) await synchronize(device);
		}
		await synchronize(device);
		const after = memory(device);
		expect([after.bytes, after.buffers]).toEqual([before.bytes, before.buffers]);
		expect(Number.isFinite((await w.read())[0])).toBe(true);
	});

	test('memory is where it was after many streaming steps', async () => {
		const [H, D] = [2, 4];
		const state = {
			m: Tensor.empty([1, H], device, 'f32', new Float32Array(H).fill(-Infinity)),
			u: ops.zeros([1, H], device),
			w: ops.zeros([1, H, D], device),
		};
		const s = of([0.5, -0.5], [1, 1, H]);
		const v = of([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, H, D]);
		const token = () => scope(() => void ops.scan(s, v, { state, inPlace: true }));
		token();
		await settled();
		const before = memory(device);
		const count = steps(100_000);
		for (let i = 1; i < count; i++) {
			token();
			if (i % 1000 === 0) await synchronize(device);
		}
		await synchronize(device);
		const after = memory(device);
		expect([after.bytes, after.buffers]).toEqual([before.bytes, before.buffers]);
		// The same token over and over: u counts the tokens, exactly, and w is u times the token, whatever the length.
		expect([...(await state.u.read())]).toEqual([count, count]);
		expect((await state.w.read())[3]! / count).toBeCloseTo(4, 5);
	});

	test('what is dropped without dispose() is freed', async () => {
		await settled();
		const before = memory(device).buffers;
		(() => {
			for (let i = 0; i < 300; i++) of([i], [1]).view([1, 1]);
		})();
		expect(memory(device).buffers).toBe(before + 300);
		for (let i = 0; i < 100 && memory(device).buffers > before; i++) {
			gc();
			await sleep(5);
		}
		expect(memory(device).buffers).toBe(before);
	});

	test('peak and cached memory', async () => {
		await settled();
		trim(device);
		const before = memory(device);
		expect(before.cachedBytes).toBe(0);
		const big = persist(Tensor.empty([1 << 20], device));
		expect(memory(device).bytes - before.bytes).toBe(4 << 20);
		big.dispose();
		await synchronize(device);
		expect(memory(device).bytes).toBe(before.bytes);
		expect(memory(device).peakBytes).toBeGreaterThanOrEqual(before.bytes + (4 << 20));
		expect(memory(device).cachedBytes).toBeGreaterThanOrEqual(4 << 20);
		trim(device);
		expect(memory(device).cachedBytes).toBe(0);
	});
});

test('devices', () => {
	const list = devices();
	expect(list[0]).toMatchObject({ name: 'cpu', architecture: expect.stringMatching(/^(base|avx2|avx512)$/), threads: expect.any(Number) });
	expect(list[0]!.memory).toBeGreaterThan(0);
	expect(list.length + list.absent.length).toBeGreaterThan(1); // CUDA is there, or there is a reason
	for (const { reason } of list.absent) expect(reason).not.toBe('');
	setThreads(1);
	expect(devices()[0]!.threads).toBe(1);
	setThreads(2);
	expect(devices()[0]!.threads).toBe(2);
	setThreads(0);
	expect(devices()[0]!.threads).toBeGreaterThan(0);
	expect(() => setThreads(-1)).toThrow(ArgumentError);
	expect(() => setThreads(1.5)).toThrow(ArgumentError);
});
