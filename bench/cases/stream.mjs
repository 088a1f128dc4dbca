// A token at a time: a row of numbers in, the result read, at a position early and late in the stream.
import { oplus } from '../machine.mjs';
import { floor } from './layer.mjs';

const { Aaren, Block, tensor } = oplus;
const C = 128;
const H = 8;
const hidden = 512;

/** One step as a program would write it. @returns {Promise<Float32Array>} */
async function step(model, state, row) {
	const x = tensor(row, [1, 1, row.length]);
	const y = model.forward(x, state);
	const numbers = await y.read();
	x.dispose();
	y.dispose();
	return numbers;
}

/** Seconds of each of `n` steps. */
export async function steps(model, state, row, n) {
	const times = new Float64Array(n);
	for (let i = 0; i < n; i++) {
		const start = process.hrtime.bigint();
		await step(model, state, row);
		times[i] = Number(process.hrtime.bigint() - start) / 1e9;
	}
	return [...times];
}

export function row(width = C) {
	return Float32Array.from({ length: width }, (_, i) => Math.sin(i + 1));
}

const models = {
	Block: (options = {}) => new Block({ dim: C, heads: H, hidden, ...options }),
	Aaren: () => new Aaren({ dim: C, heads: H }),
};

export { C, H, hidden, models };

async function at(name, position, state, model, setting, torch) {
	const count = setting.quick ? 50 : 2000;
	const rounds = setting.quick ? 2 : 5;
	const times = { ours: [], again: [] };
	for (let round = 0; round < rounds; round++) {
		for (const run of ['ours', 'again']) times[run].push(...(await steps(model, state, row(), count)));
		if (!torch || name !== 'Block' || position > 10_000) continue;
		const peerAt = { work: 'stream', C, H, hidden, at: position, steps: setting.quick ? 20 : 500 };
		const label = `PyTorch with a KV cache at ${position}`;
		(times[label] ??= []).push(...(await torch.ask(peerAt)).seconds);
	}
	const { bytes, operations } = floor({ B: 1, T: 1, C, H, hidden: name === 'Block' ? hidden : 0 });
	const goal = { what: `step of ${name} below 20 µs`, below: 20e-6, found: (line) => line.seconds };
	const sizes = { C, H, ...(name === 'Block' && { hidden }), position };
	return { name: `streaming step, ${name}`, sizes, threads: setting.threads, bytes, operations, times, goals: setting.quick ? [] : [goal] };
}

export const name = 'stream';

export async function* run(setting, torch) {
	const positions = setting.quick ? [100, 400] : [1000, 10_000, 1_000_000];
	for (const name of ['Aaren', 'Block']) {
		const model = models[name]();
		const state = model.initialState();
		await steps(model, state, row(), setting.quick ? 50 : 200);
		for (const position of positions) {
			await steps(model, state, row(), Math.max(0, position - state.length));
			yield at(name, position, state, model, setting, torch);
		}
		state.dispose();
		model.dispose();
	}
}
