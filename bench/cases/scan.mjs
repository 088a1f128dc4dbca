// The scan forward and backward, against a copy of the bytes that they must move.
import { copy } from '../ceilings.mjs';
import { binding, buffer, numbers, timed, withBuffers } from '../machine.mjs';
import * as plain from '../peers/plain.mjs';
import { inTurns, seconds } from '../timing.mjs';

const sizesOf = ({ quick }) => (quick ? { B: 1, T: 512, H: 4, D: 32 } : { B: 1, T: 65_536, H: 8, D: 64 });

/** Elements that must be read or written at least. L is what the forward pass leaves for the backward one. */
function floors({ B, T, H, D }) {
	const tokens = B * T * H;
	const forward = tokens * (2 * D + 1); // s, v → o
	const backward = tokens * (4 * D + 3); // s, v, g, L, o → ds, dv
	return { forward: 4 * forward, backward: 4 * backward, both: 4 * (forward + tokens + backward) };
}

/** Forward: 2D for w, D for o, and two exponentials (counted as one operation each) and four more. Backward: about twice. */
const operationsOf = ({ B, T, H, D }) => B * T * H * (3 * D + 6);

function buffers({ B, T, H, D }) {
	const rows = B * T * H;
	const [s, v, o, L] = [buffer(rows, 3), buffer(rows * D), buffer(rows * D), buffer(rows)];
	const [m, u, w] = [buffer(B * H), buffer(B * H), buffer(B * H * D)];
	return { s, v, o, L, m, u, w, g: buffer(rows * D), ds: buffer(rows), dv: buffer(rows * D) };
}

function calls({ B, T, H, D }, { s, v, o, L, m, u, w, g, ds, dv }) {
	const forward = (kept) => binding.scan(s, v, null, null, null, null, o, kept, m, u, w, B, T, H, H, D, false);
	const none = [null, null, null];
	const backward = () => binding.scanBackward(s, v, ...none, null, o, L, g, ...none, ds, dv, null, null, B, T, H, H, D, false);
	const keep = () => forward(L);
	return {
		keep,
		forward: timed(() => forward(null)),
		backward: timed(backward),
		both: timed(() => {
			keep();
			backward();
		}),
	};
}

async function line({ name, part, goal, grad, setting, torch, sizes, rounds }) {
	return withBuffers(buffers(sizes), async (held) => {
		const bytes = floors(sizes)[part];
		const ceiling = copy(bytes);
		const run = calls(sizes, held);
		run.keep();
		const contestants = { ours: run[part], 'a copy': ceiling.run, again: run[part] };
		if (torch && part !== 'backward') {
			for (const form of ['chunked', 'textbook']) {
				// The textbook form keeps every round's (m, u, w) for its gradient: too much for one machine at this size.
				if (form === 'textbook' && grad && sizes.T > 16_384) continue;
				contestants[`PyTorch, ${form} scan`] = torch.contestant({ work: 'scan', form, grad, ...sizes });
			}
		}
		if (part === 'forward') {
			const { T, H, D } = sizes;
			const [s, v, o] = [numbers(T * H, 3), numbers(T * H * D), new Float32Array(T * H * D)];
			contestants['plain JavaScript, 1 thread'] = () => seconds(() => plain.scan(s, v, o, T, H, D));
		}
		const times = await inTurns(contestants, rounds);
		ceiling.dispose();
		await torch?.ask({ work: 'forget' });
		const operations = { forward: 1, backward: 2, both: 3 }[part] * operationsOf(sizes);
		const goals = goal ? [{ ...goal, found: (found) => found.ceiling.fraction }] : [];
		return { name, sizes, threads: setting.threads, bytes, operations, times, ceiling: 'a copy', goals };
	});
}

export const name = 'scan';

/** @param {{ threads: number, quick: boolean }} setting */
export async function* run(setting, torch) {
	const sizes = sizesOf(setting);
	const rounds = setting.quick ? { rounds: 3 } : { rounds: 15, budget: 60 };
	const common = { setting, torch, sizes, rounds };
	const large = !setting.quick;
	yield line({
		...common,
		name: 'scan, forward',
		part: 'forward',
		grad: false,
		goal: large && { what: 'at least 85 % of a copy', atLeast: 0.85 },
	});
	yield line({ ...common, name: 'scan, backward', part: 'backward', grad: true });
	const goal = large && { what: 'at least 60 % of a copy of what both must move', atLeast: 0.6 };
	yield line({ ...common, name: 'scan, forward and backward', part: 'both', grad: true, goal });
}
