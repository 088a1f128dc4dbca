// What fewer states are worth where memory is what there is: as many sequences side by side as hold no more states in all
// than a few with every state. Where reading memory is all that counts, a step takes the same time however they are cut, so
// that throughput grows as the number of sequences does: that is the roof. (Oren et al. 2024, table 3: 4.8 × at 1/8 of 4,096.)
import { oplus } from '../machine.mjs';
import { modelFile } from '../models/make.mjs';
import { inTurns } from '../timing.mjs';
import { floor, stepper } from './decode.mjs';

const { full, Llama, tova } = oplus;

export const name = 'roof';

export async function* run(setting) {
	const [shape, type] = setting.quick ? ['tiny', 'q8_0'] : ['110m', 'q8_0'];
	const [most, few] = setting.quick ? [32, 2] : [4096, 8];
	const dtype = 'f16';
	const model = await Llama.load(modelFile(shape, type));
	const budget = setting.quick ? 0.02 : 0.5;
	const every = stepper(model, { cache: full(), states: most, batch: few, dtype, budget });
	for (const cut of setting.quick ? [8] : [2, 4, 8, 16]) {
		const [states, batch] = [most / cut, few * cut];
		const some = stepper(model, { cache: tova(states), states, batch, dtype, budget });
		const contestants = { ours: some.run, 'every state': every.run, again: some.run };
		const times = await inTurns(contestants, setting.quick ? { rounds: 2 } : { rounds: 7, budget: 30 });
		some.dispose();
		oplus.trim();
		// The peer here is ourselves with every state: seconds of a token against seconds of a token.
		times['every state'] = times['every state'].map((time) => (time * batch) / few);
		const sizes = { model: shape, weights: type, policy: 'tova', S: states, of: most, cache: dtype, batch, beside: few };
		const work = floor({ shape, type, batch, states, dtype });
		const goals =
			!setting.quick && cut === 8
				? [{ what: 'at least 4.8 × the tokens a second of every state', atLeast: 4.8, found: ({ peers }) => peers['every state'].ratio }]
				: [];
		yield { name: `decode in the same memory, roof ${cut} ×`, sizes, threads: setting.threads, tokens: batch, ...work, times, goals };
	}
	every.dispose();
	model.dispose();
}
