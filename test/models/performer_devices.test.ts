/** Whatever a model of tokens learns and says, it does on every device as on the CPU. */
import { describe, expect, test } from 'vitest';
import { noGrad } from '../../lib/autograd.js';
import { type DeviceName, devices } from '../../lib/device.js';
import { Performer } from '../../lib/models/performer.js';
import type { TokenBatch } from '../../lib/models/tokens.js';
import { Random } from '../../lib/random.js';
import { scope } from '../../lib/tensor.js';
import { fit } from '../../lib/train/fit.js';
import { worst } from '../numbers.js';
import { makeModel } from './performerize_models.js';

const random = new Random(3);
const texts = Array.from({ length: 6 }, () => Int32Array.from({ length: 12 }, () => random.integer(9)));
const data = {
	length: texts.length,
	batch: (indices: readonly number[]): TokenBatch => ({
		x: indices.map((i) => texts[i]!.subarray(0, 11)),
		y: indices.map((i) => texts[i]!.subarray(1)),
	}),
};

/** Losses of a short training with draws between, and what the model says then. */
async function trained(model: Parameters<typeof fit<TokenBatch>>[0] & { forward(ids: Int32Array): { read(): Promise<Float32Array> } }) {
	const losses: number[] = [];
	for await (const { loss } of fit<TokenBatch>(model, data, { epochs: 2, batch: 3, rate: 1e-3, every: 1 })) losses.push(loss);
	const logits = await noGrad(() => scope(() => ({ read: model.forward(texts[0]!).read() }))).read;
	return { losses: Float32Array.from(losses), logits };
}

/** Steps of AdamW divide by the gradient's own size, which makes the rounding of small gradients as large as a step is: 1e-3 of it. */
const apart = 2e-3;

describe.each(devices().map(({ name }) => name))('%s', (device) => {
	test.each(['softmax', 'relu'] as const)('a Performer of %s features learns and says the same', async (featureKind) => {
		const sizes = { vocabulary: 9, dim: 8, layers: 1, heads: 2, hidden: 12, features: 8, featureKind, redrawEvery: 2, seed: 4 };
		const on = async (place: DeviceName) => {
			using model = new Performer({ ...sizes, causal: true }, { device: place });
			return await trained(model);
		};
		const [here, there] = [await on('cpu'), await on(device)];
		expect(here.losses.length).toBe(4);
		expect(worst(there.losses, here.losses)).toBeLessThan(apart);
		expect(worst(there.logits, here.logits)).toBeLessThan(apart);
	});

	test('a converted decoder too', async () => {
		using llama = await makeModel();
		const on = async (place: DeviceName) => {
			using model = await llama.performerize({ features: 8, seed: 2, device: place });
			return await trained(model);
		};
		const [here, there] = [await on('cpu'), await on(device)];
		expect(worst(there.losses, here.losses)).toBeLessThan(apart);
		expect(worst(there.logits, here.logits)).toBeLessThan(apart);
	});
});
