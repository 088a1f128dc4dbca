// Train over all of time at once, then run one token at a time: the two give the same numbers.
import { Aaren, noGrad, ops, Random, scope, tensor } from 'oplus';

const random = new Random(1);
using layer = new Aaren({ dim: 16, heads: 2, seed: 1 });
using x = tensor(
	Float32Array.from({ length: 2 * 50 * 16 }, () => random.normal()),
	[2, 50, 16],
);
using target = tensor(new Float32Array(2 * 50 * 16), [2, 50, 16]);

const loss = scope(() => {
	const value = ops.meanSquaredError(layer.forward(x), target);
	value.backward();
	return value;
});
console.log(`loss ${(await loss.read())[0]!.toFixed(4)}`);
console.log(`gradient of the query token: ${[...(await layer.query.grad!.read()).subarray(0, 4)].map((g) => g.toFixed(5)).join(', ')}, …`);

const whole = await noGrad(() => layer.forward(x)).read();
const state = layer.initialState({ batch: 2 });
let worst = 0;
for (let t = 0; t < 50; t++) {
	const row = noGrad(() => ops.slice(x, 1, t, t + 1));
	const y = await layer.forward(row, state).read();
	for (let b = 0; b < 2; b++)
		for (let c = 0; c < 16; c++) worst = Math.max(worst, Math.abs(y[b * 16 + c]! - whole[(b * 50 + t) * 16 + c]!));
}
console.log(`one by one against all at once: largest difference ${worst.toExponential(1)}`);
