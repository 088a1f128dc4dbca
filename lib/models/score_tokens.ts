import { binding } from '../binding.js';
import { persist, Tensor } from '../tensor.js';
import { type Chunk, feed } from './feed.js';
import type { Llama } from './llama.js';
import type { CallOptions, Running } from './session_options.js';

export interface Scored {
	readonly tokens: Int32Array;
	/** −ln p of each token given those before it, `[tokens.length]`; NaN for the first of a sequence. */
	readonly nll: Float32Array;
}

/** Numbers of logits that are held at a time. */
const LOGITS = 1 << 22;

/** `Session.score`: feeds tokens and compares what each chunk predicts with what came. */
export async function scoreTokens(
	model: Llama,
	running: Running,
	positions: 'original' | 'cache',
	tokens: Int32Array,
	options: CallOptions,
): Promise<Scored> {
	const { vocabulary } = model.config;
	const nll = new Float32Array(tokens.length).fill(NaN);
	if (running.seen[0]! > 0 && tokens.length > 0) {
		const logits = persist(Tensor.empty([1, vocabulary], model.device, 'f32', running.logits));
		const found = persist(Tensor.empty([1], model.device));
		compare(logits, tokens.subarray(0, 1), found, 0);
		logits.dispose();
		nll.set(await found.read());
		found.dispose();
	}
	await feed(model, running, positions, [tokens], false, options, (chunk) => {
		const losses = predicted(model, tokens, chunk);
		return async () => {
			nll.set(await losses.read(), chunk.offset + 1);
			losses.dispose();
		};
	});
	return { tokens, nll };
}

/** −ln p of the tokens that follow those of a chunk: one fewer at the very end. */
function predicted(model: Llama, tokens: Int32Array, { activations, tokens: count, offset }: Chunk): Tensor {
	const most = Math.max(1, Math.floor(LOGITS / model.config.vocabulary));
	const targets = tokens.subarray(offset + 1, offset + count + 1);
	const losses = persist(Tensor.empty([targets.length], model.device));
	for (let row = 0; row < targets.length; row += most) {
		const part = targets.subarray(row, row + most);
		const logits = model.logits(
			activations,
			Int32Array.from(part, (_, i) => row + i),
		);
		compare(logits, part, losses, row);
		logits.dispose();
	}
	return losses;
}

/** losses[first + i] = −ln p of target i by row i of the logits. */
function compare(logits: Tensor, targets: Int32Array, losses: Tensor, first: number): void {
	const n = targets.length;
	const list = persist(Tensor.empty([n], logits.device, 'i32', targets));
	const part = persist(Tensor.empty([n], logits.device));
	binding.crossEntropy(logits.buffer, list.buffer, part.buffer, n, logits.shape[1]!);
	binding.copyBlock(part.buffer, losses.buffer, 1, n, n, 0, losses.size, first);
	for (const tensor of [list, part]) tensor.dispose();
}
