import { describe, expect, test } from 'vitest';
import { devices, memory, PerformerAttention, synchronize, tensor } from '../../lib/index.js';

// In a file of its own: what other tests drop is freed whenever the collector comes.
for (const { name: device } of devices()) {
	describe(device, () => {
		const C = 24;
		const tokens = (B: number, T: number) =>
			tensor(
				Float32Array.from({ length: B * T * C }, (_, i) => Math.sin(i)),
				[B, T, C],
				{ device },
			);

		test('draws, steps and pieces leave the bytes where they were', async () => {
			await synchronize();
			const before = memory(device);
			{
				using layer = new PerformerAttention({ dim: C, heads: 3, features: 16, rope: true, redrawEvery: 1, device });
				using state = layer.initialState();
				const x = tokens(1, 1);
				const piece = tokens(1, 5);
				layer.forward(x, state).dispose();
				await synchronize();
				const { bytes, buffers } = memory(device);
				for (let i = 0; i < 300; i++) {
					layer.forward(x, state).dispose();
					layer.forward(piece, state).dispose();
				}
				await synchronize();
				expect(memory(device)).toMatchObject({ bytes, buffers });
				for (let i = 0; i < 20; i++) {
					layer.setTraining(true, i);
					expect(layer.features.omega.bytes).toBe(4 * 16 * 8);
				}
				await synchronize();
				expect(memory(device)).toMatchObject({ bytes, buffers });
				x.dispose();
				piece.dispose();
			}
			await synchronize();
			expect(memory(device)).toMatchObject({ bytes: before.bytes, buffers: before.buffers });
		});
	});
}
