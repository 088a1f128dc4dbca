// Decoding under each policy: what S states cost, and how many sequences side by side share the reading of the weights.
import { read } from '../ceilings.mjs';
import { oplus } from '../machine.mjs';
import { modelFile } from '../models/make.mjs';
import { shapes, stateBytes } from '../models/shapes.mjs';
import { inTurns } from '../timing.mjs';
import { floor, stepper } from './decode.mjs';

const { full, h2o, Llama, tova, window } = oplus;

export const name = 'states';

export const policies = { full: () => full(), window: (S) => window(S), tova: (S) => tova(S), h2o: (S) => h2o(S) };

/** Bytes of states beyond which a size is left out. */
const most = 2 ** 32;

/** All policies in turns at one size, each a line. */
async function* at({ model, shape, type, batch, states, dtype }, setting) {
	const work = floor({ shape, type, batch, states, dtype });
	const ceiling = read(work.bytes);
	const budget = setting.quick ? 0.02 : 0.1;
	const contestants = { 'a read': ceiling.run };
	const held = [];
	for (const [name, policy] of Object.entries(policies)) {
		const mine = stepper(model, { cache: policy(states), states, batch, dtype, budget });
		held.push(mine);
		contestants[name] = mine.run;
	}
	contestants.again = contestants.tova;
	const all = await inTurns(contestants, setting.quick ? { rounds: 2 } : { rounds: 5, budget: 10, warmups: 2 });
	for (const each of [...held, ceiling]) each.dispose();
	oplus.trim();
	for (const policy of Object.keys(policies)) {
		const times = { ours: all[policy], 'a read': all['a read'], ...(policy === 'tova' && { again: all.again }) };
		const sizes = { model: shape, weights: type, policy, S: states, cache: dtype, batch };
		yield { name: 'decode, bounded', sizes, threads: setting.threads, tokens: batch, ...work, times, ceiling: 'a read' };
	}
}

export async function* run(setting) {
	const [shape, type] = setting.quick ? ['tiny', 'q8_0'] : ['110m', 'q8_0'];
	const model = await Llama.load(modelFile(shape, type));
	for (const dtype of ['f32', 'f16']) {
		for (const states of setting.quick ? [16] : [64, 256, 1024, 4096]) {
			for (const batch of setting.quick ? [1, 2] : [1, 8, 64]) {
				// All four policies hold their states at once.
				if (4 * batch * (states + 64) * stateBytes(shapes[shape], dtype) > most) continue;
				yield* at({ model, shape, type, batch, states, dtype }, setting);
			}
		}
	}
	model.dispose();
}
