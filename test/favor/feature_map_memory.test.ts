/** What a feature map holds: in a file of its own, where no other test's leavings are collected meanwhile. */
import { expect, test } from 'vitest';
import { devices, memory, synchronize } from '../../lib/device.js';
import { favor } from '../../lib/ops/favor.js';
import { linearAttention } from '../../lib/ops/linear_attention.js';
import { scope, tensor } from '../../lib/tensor.js';
import { generator, uniform } from '../harness.js';

test.each(devices().map(({ name }) => name))('%s: a thousand redraws hold no more than one, in scopes too', async (device) => {
	await synchronize(device);
	const before = memory(device).bytes;
	const features = favor({ dim: 4, features: 64, device });
	const random = generator(3);
	const inputs = [0, 1, 2].map(() => tensor(uniform([1, 3, 2, 4], random).data as Float32Array, [1, 3, 2, 4], { device }));
	expect(features.bytes).toBe(0);
	const step = () => scope(() => void linearAttention(inputs[0]!, inputs[1]!, inputs[2]!, { features, causal: true }));
	step();
	await synchronize(device);
	const held = memory(device).bytes;
	for (let i = 0; i < 1000; i++) {
		features.redraw();
		step();
	}
	await synchronize(device);
	expect(features.bytes).toBe(4 * 4 * 64);
	expect(memory(device).bytes).toBe(held);
	features.dispose();
	for (const each of inputs) each.dispose();
	await synchronize(device);
	expect(memory(device).bytes).toBe(before);
});
