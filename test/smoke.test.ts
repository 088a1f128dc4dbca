import { expect, test } from 'vitest';
import { scan } from '../lib/ops/scan.js';
import { tensor } from '../lib/tensor.js';
import '../lib/autograd.js';
test('scan', async () => {
	const s = tensor([0, 1, 2], [1, 3, 1]), v = tensor([1, 2, 3], [1, 3, 1, 1]);
	s.requiresGrad = v.requiresGrad = true;
	const { o } = scan(s, v);
	console.log(await o.read());
	expect((await o.read())[2]).toBeCloseTo((1 + 2 * Math.E + 3 * Math.E ** 2) / (1 + Math.E + Math.E ** 2), 5);
});
