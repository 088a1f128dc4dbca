// A stream that never ends, in constant memory: an Aaren block reads one row at a time, and its state is always as large.
import { Block, tensor } from 'oplus';

using layer = new Block({ dim: 64, heads: 4, seed: 1 });
using state = layer.initialState();
using x = tensor(new Float32Array(64), [1, 1, 64]);

for (let t = 0; t < 10_000; t++) {
	x.write(Float32Array.from({ length: 64 }, (_, c) => Math.sin(t / (c + 1))));
	using y = layer.forward(x, state);
	const row = await y.read();
	if (t % 2500 === 0) console.log(`token ${t}: first output ${row[0]!.toFixed(4)}, state ${state.bytes} bytes`);
}
