import { Block, Random, tensor } from 'oplus';

const random = new Random(1);
using block = new Block({ dim: 64, heads: 4, mixer: 'aaren', seed: 1 });
using history = tensor(
	Float32Array.from({ length: 1000 * 64 }, () => random.normal()),
	[1, 1000, 64],
);
using state = block.initialState();

using all = block.forward(history, state); // all at once …
console.log(`[${all.shape}] from ${state.length} tokens; the state has ${state.bytes} bytes`);

for (let t = 0; t < 3; t++) {
	using token = tensor(
		Float32Array.from({ length: 64 }, () => random.normal()),
		[1, 1, 64],
	);
	using next = block.forward(token, state); // … and one by one, for as long as you like
	console.log(`token ${state.length}: ${(await next.read())[0]!.toFixed(3)}, ${state.bytes} bytes`);
}
