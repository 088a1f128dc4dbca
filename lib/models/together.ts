import { ArgumentError } from '../errors.js';
import { type BatchPiece, type GenerateOptions, type Generation, generateBatch, type Prompt } from '../generate/index.js';
import { Session } from './session.js';

/**
 * `generate` for several sessions of one model, each with states and a policy of its own: a pass a token for all that are still
 * running, so weights are read once for all of them. Prompts are taken in one after the other.
 * @param sessions of one sequence each, all with the same `positions`
 * @param prompts one for each; '' goes on from where its session is
 * @example for await (const { index, text } of generateTogether(sessions, prompts)) replies[index] += text;
 */
export function generateTogether(
	sessions: readonly Session[],
	prompts: readonly Prompt[],
	options: GenerateOptions = {},
): Generation<BatchPiece> {
	const model = sessions[0]?.model;
	if (!model) throw new ArgumentError('generateTogether: found no sessions, expected at least one');
	const { vocabulary } = model.config;
	const logits = new Float32Array(sessions.length * vocabulary).fill(NaN);
	const decoder = {
		batch: sessions.length,
		vocabulary,
		eos: model.config.eos,
		get positions() {
			return Int32Array.from(sessions, ({ position }) => position);
		},
		async next(lists: readonly ArrayLike<number>[], { signal }: { readonly signal?: AbortSignal } = {}) {
			signal?.throwIfAborted();
			const put = (index: number, row: Float32Array) => logits.set(row, index * vocabulary);
			for (const [index, list] of lists.entries()) {
				if (list.length !== 1 && sessions[index]) put(index, await sessions[index].next(list, signal ? { signal } : {}));
			}
			const single = [...lists.keys()].filter((index) => lists[index]!.length === 1);
			if (single.length > 0) {
				const rows = await Session.nextTogether(
					single.map((index) => sessions[index]!),
					single.map((index) => lists[index]![0]!),
				);
				for (const [i, index] of single.entries()) put(index, rows[i]!);
			}
			return logits;
		},
	};
	return generateBatch(decoder, model.tokenizer, prompts, options);
}
