// Where the time of a decoder's step goes: each of its operations by itself, on the weights of a model of random numbers and
// in the order of its layers, beside the time that reading its bytes takes.
//
//   node bench/decoder_parts.mjs [--shape 110m] [--type q8_0] [--threads 1] [--batch 1] [--states 4000] [--rounds 12]
//
// Times are the best of their rounds, because a profile asks what the machine can do; with one thread they are the processor's
// time, which does not count what other programs take away. Weights and caches are cold. `of a token` is what the operation
// takes in a whole step; the table ends with the whole step as `session.next` runs it.
import { parseArgs } from 'node:util';
import { binding, buffer, facts, oplus, require } from './machine.mjs';
import { modelFile } from './models/make.mjs';
import { matricesOf, shapes, stateBytes, types, weightBytes } from './models/shapes.mjs';
import { filled } from './sessions.mjs';
import { seconds } from './timing.mjs';

const { openPretrained } = require('../dist/io/open_pretrained.js');
const { mapWeights } = require('../dist/models/llama_weights.js');
const { values } = parseArgs({
	options: {
		shape: { type: 'string', default: '110m' },
		type: { type: 'string', default: 'q8_0' },
		threads: { type: 'string', default: '1' },
		batch: { type: 'string', default: '1' },
		states: { type: 'string', default: '4000' },
		rounds: { type: 'string', default: '12' },
	},
});
const { shape: name, type } = values;
const [threads, N, S, rounds] = ['threads', 'batch', 'states', 'rounds'].map((each) => Number(values[each]));
const shape = shapes[name];
const { dim, hidden, heads, kvHeads, layers, vocabulary } = shape;
const D = dim / heads;

const many = buffer(2 ** 25);
const total = buffer(1);
/** Other numbers take the place of what the caches hold. */
const cool = () => binding.sumSquares(many, total, 2 ** 25);

/** Seconds of the best round. */
async function best(run) {
	let least = Infinity;
	for (let round = 0; round < rounds; round++) {
		cool();
		await binding.synchronize('cpu');
		const spent = process.cpuUsage();
		const wall = await seconds(async () => {
			await run();
			await binding.synchronize('cpu');
		});
		const { user, system } = process.cpuUsage(spent);
		least = Math.min(least, threads === 1 ? (user + system) / 1e6 : wall);
	}
	return least;
}

const rows = [];
let bandwidth = 0;

/** @param {() => void} work all of it that a token needs, of `count` calls @param {number} bytes that it must read */
async function part(what, count, bytes, work) {
	const taken = await best(work);
	const moved = bytes > 1e5; // less lies in the caches
	rows.push([
		what,
		`${count}`,
		((taken / count) * 1e6).toFixed(1),
		(taken * 1e3).toFixed(2),
		moved ? (bytes / taken / 1e9).toFixed(1) : '',
		moved ? `${Math.round((100 * bytes) / taken / bandwidth)} %` : '',
	]);
	return taken;
}

binding.setThreads(threads);
const machine = facts('node bench/decoder_parts.mjs');
const path = modelFile(name, type);
const files = await openPretrained(path);
const weights = await mapWeights(files, { device: 'cpu', verify: true });
const large = buffer(2 ** 26);
bandwidth = 2 ** 28 / (await best(() => binding.sumSquares(large, total, 2 ** 26)));
binding.dispose(large);

const { numbers, bytes: blockBytes } = types[type];
const stored = ([F, C]) => ((F * C) / numbers) * blockBytes;
const [x, y] = [buffer(N * Math.max(hidden, dim)), buffer(N * Math.max(hidden, vocabulary))];
const project = ({ w, kind }, [F, C]) => binding.linearStored(x, w.buffer, null, y, kind, N, C, F);
const ours = { attn_q: 'q', attn_k: 'k', attn_v: 'v', attn_output: 'o', ffn_gate: 'gate', ffn_up: 'up', ffn_down: 'down' };
let sum = 0;
for (const [matrix, size] of Object.entries(matricesOf(shape))) {
	sum += await part(`linearStored ${matrix} [${size}]`, layers, layers * stored(size), () => {
		for (const layer of weights.layers) project(layer[ours[matrix]], size);
	});
}
sum += await part(`linearStored head [${vocabulary},${dim}]`, 1, stored([vocabulary, dim]), () => project(weights.head, [vocabulary, dim]));

const gamma = buffer(dim);
const table = buffer(N * D);
const [q, k] = [buffer(N * dim), buffer(N * kvHeads * D)];
const ids = binding.create('cpu', 4 * N, new Int32Array(N).fill(7));
const frequencies = buffer(D);
const small = [
	['rmsNorm', 2 * layers + 1, () => binding.rmsNorm(x, gamma, y, N, dim, 1e-5)],
	['rope of q', layers, () => binding.rope(q, table, q, N, heads, D, true)],
	['rope of k', layers, () => binding.rope(k, table, k, N, kvHeads, D, true)],
	['accumulate', 2 * layers, () => binding.accumulate(x, q, N * dim)],
	['swiglu', layers, () => binding.swiglu(x, y, x, N * hidden)],
	['rotations', 1, () => binding.rotations(ids, frequencies, table, N, D / 2, 1)],
	['embedStored', 1, () => binding.embedStored(ids, weights.embedding.w.buffer, y, weights.embedding.kind, N, vocabulary, dim)],
];
for (const [what, count, call] of small) {
	sum += await part(what, count, 0, () => {
		for (let i = 0; i < count; i++) call();
	});
}

const { full, h2o, tova, window, Llama } = oplus;
const model = await Llama.load(path);
const steps = [];
for (const dtype of ['f32', 'f16']) {
	for (const policy of [full(), window(S), tova(S), h2o(S)]) {
		const { session, rewind, caches } = filled(model, { cache: policy, states: S, batch: N, dtype });
		const o = buffer(N * dim);
		const seenBuffer = binding.create('cpu', 4 * N, new Int32Array(N).fill(S));
		const tensors = [q, k, k, o].map((each) => ({ buffer: each }));
		const step = { q: tensors[0], k: tensors[1], v: tensors[2], o: tensors[3], seenBuffer, lengths: null, lengthsBuffer: null, tokens: 1 };
		const attention = await part(`cacheAttend ${policy.name} ${dtype}, S ${S}`, layers, N * S * stateBytes(shape, dtype), () => {
			for (const cache of caches) cache.steps(step, null);
		});
		rewind();
		const whole = await best(() => session.next(N === 1 ? [7] : Array.from({ length: N }, () => [7])));
		steps.push({ policy: policy.name, dtype, attention, whole });
		for (const each of [o, seenBuffer]) binding.dispose(each);
		session.dispose();
		oplus.trim();
	}
}

console.log(
	`${name} ${type}, ${threads} threads, batch ${N}, ${S} states; ${machine.cpu} (${machine.instructions}), load ${machine.load[0].toFixed(1)}; ` +
		`a read: ${(bandwidth / 1e9).toFixed(1)} GB/s\n`,
);
console.log('| operation | calls a token | µs each | ms of a token | GB/s | of a read |\n|---|---|---|---|---|---|');
for (const row of rows) console.log(`| ${row.join(' | ')} |`);
console.log('\n| step | ms | ms of its operations | ms beside them | floor, ms |\n|---|---|---|---|---|');
for (const { policy, dtype, attention, whole } of steps) {
	const bytes = weightBytes(shape, type) + N * S * stateBytes(shape, dtype);
	const beside = whole - sum - attention;
	const cells = [whole, sum + attention, beside, bytes / bandwidth].map((each) => (each * 1e3).toFixed(2));
	console.log(`| ${policy} ${dtype}, S ${S} | ${cells.join(' | ')} |`);
}
