import { expect, test } from 'vitest';
import { fit, memory, Performer, synchronize } from '../../lib/index.js';
import { Letters } from './sequences.js';

// In a file of its own: what other tests drop is freed whenever the collector comes.
const config = { vocabulary: 7, dim: 16, layers: 2, heads: 2, hidden: 24, features: 12, redrawEvery: 3 };

test('a long stream and a training hold what they held', async () => {
	await synchronize();
	const start = memory();
	{
		using model = new Performer(config);
		using state = model.initialState();
		model.forward([1], state).dispose();
		await synchronize();
		const { bytes, buffers } = memory();
		const stateBytes = state.bytes;
		for (let t = 0; t < 5000; t++) {
			model.forward([t % 7], state).dispose();
			if (t % 500 === 0) await synchronize();
		}
		await synchronize();
		expect(state.bytes).toBe(stateBytes);
		expect(memory()).toMatchObject({ bytes, buffers });
		for await (const _ of fit(model, new Letters(16, 8), { epochs: 2, batch: 4, rate: 1e-3 }));
		await synchronize();
		expect(memory()).toMatchObject({ bytes, buffers });
	}
	await synchronize();
	expect(memory()).toMatchObject({ bytes: start.bytes, buffers: start.buffers });
});
