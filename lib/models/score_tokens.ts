import { binding } from '../binding.js';
import { persist, Tensor } from '../tensor.js';
import { feedChunks } from './feed.js';
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
		nll.set(await losses(Tensor.empty([1, vocabulary], model.device, 'f32', running.logits), tokens.subarray(0, 1)));
	}
	await feedChunks(model, running, positions, [tokens], false, options, async ({ activations, tokens: count, offsets }) => {
		const first = offsets[0]!;
		const most = Math.max(1, Math.floor(LOGITS / vocabulary));
		for (let row = 0; row < count; row += most) {
			const rows = Math.min(most, count - row);
			const logits = model.logits(
				activations,
				Int32Array.from({ length: rows }, (_, i) => row + i),
			);
			if (first + row + rows === tokens.length) {
				const all = await logits.read();
				running.logits.set(all.subarray((rows - 1) * vocabulary));
			}
			const targets = tokens.subarray(first + row + 1, first + row + rows + 1); // one fewer at the very end
			nll.set(await losses(logits, targets), first + row + 1);
		}
	});
	return { tokens, nll };
}

/** −ln p of the targets, of as many rows as there are targets. Disposes of the logits. */
async function losses(logits: Tensor, targets: Int32Array): Promise<Float32Array> {
	const list = persist(Tensor.empty([targets.length], logits.device, 'i32', targets));
	const loss = persist(Tensor.empty([targets.length], logits.device));
	binding.crossEntropy(logits.buffer, list.buffer, loss.buffer, targets.length, logits.shape[1]!);
	const found = await loss.read();
	for (const tensor of [logits, list, loss]) tensor.dispose();
	return found;
}
