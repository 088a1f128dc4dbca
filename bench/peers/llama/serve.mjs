// node-llama-cpp as a process of its own: one JSON request a line in, one answer a line out. Tokens are numbers and go to
// llama.cpp's own batches: no text, no sampling, nothing between JavaScript and a step but the call of it, which is the
// fastest that it can be used.
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const VOCABULARY = 500; // every model's is larger
const seconds = async (run) => {
	const start = process.hrtime.bigint();
	await run();
	return Number(process.hrtime.bigint() - start) / 1e9;
};

let llama;
let model;
let context;
/** Tokens held by each of the context's sequences. */
let held = 0;

/** A token for every sequence, with logits for each; as `session.next` of ours. */
async function step(sequences) {
	const raw = context._ctx;
	raw.initBatch(sequences);
	for (let i = 0; i < sequences; i++) raw.addToBatch(i, held, Uint32Array.of(3 + (held % VOCABULARY)), Uint32Array.of(0));
	await raw.decodeBatch();
	held++;
}

/** `tokens` to the first sequence, in batches of 512, logits for the last alone. */
async function feed(tokens) {
	const raw = context._ctx;
	for (let done = 0; done < tokens; done += 512) {
		const count = Math.min(512, tokens - done);
		raw.initBatch(count);
		const ids = Uint32Array.from({ length: count }, (_, i) => 3 + ((done + i) % VOCABULARY));
		raw.addToBatch(0, held, ids, done + count === tokens ? Uint32Array.of(count - 1) : new Uint32Array(0));
		await raw.decodeBatch();
		held += count;
	}
}

function forget(sequences, from) {
	for (let i = 0; i < sequences; i++) context._ctx.removeTokenCellsFromSequence(i, from, -1);
	held = from;
}

const works = {
	async facts() {
		const { version } = JSON.parse(fs.readFileSync(new URL('./node_modules/node-llama-cpp/package.json', import.meta.url), 'utf8'));
		return { version, system: llama.systemInfo };
	},

	/** Opens a model; a context of it is made for `sequences` of `room` tokens each, of which `at` are fed. */
	async open({ path, threads, sequences = 1, room, at = 0 }) {
		await context?.dispose();
		if (model?.path !== path) {
			await model?.opened.dispose();
			model = { path, opened: await llama.loadModel({ modelPath: path, gpuLayers: 0 }) };
		}
		context = await model.opened.createContext({ contextSize: room, sequences, threads, batchSize: 512 });
		context._ctx.setThreads(threads);
		held = 0;
		if (at > 0) await feed(at);
		for (let i = 1; i < sequences && at > 0; i++) await context._ctx.copySequenceStateFromOtherSequence(i, 0);
		return { threads: context._ctx.getThreads(), flashAttention: context.flashAttention, keys: context.kvCacheKeyType };
	},

	/** Seconds of a step of all sequences, the mean of `steps`, and of the processor's time; what was added is forgotten. */
	async decode({ steps, sequences = 1 }) {
		const before = held;
		const spent = process.cpuUsage();
		const all = await seconds(async () => {
			for (let i = 0; i < steps; i++) await step(sequences);
		});
		const { user, system } = process.cpuUsage(spent);
		forget(sequences, before);
		return { seconds: [all / steps], processor: [(user + system) / 1e6 / steps] };
	},

	/** Seconds until `tokens` are read by an empty sequence. */
	async prefill({ tokens }) {
		forget(1, 0);
		const all = await seconds(() => feed(tokens));
		forget(1, 0);
		return { seconds: [all] };
	},
};

llama = await getLlama({ gpu: false, build: 'never', maxThreads: 0, logLevel: LlamaLogLevel.error });
for await (const line of createInterface({ input: process.stdin })) {
	let answer;
	try {
		const request = JSON.parse(line);
		answer = await works[request.work](request);
	} catch (error) {
		answer = { error: String(error?.stack ?? error) };
	}
	console.log(JSON.stringify(answer));
}
process.exit(0);
