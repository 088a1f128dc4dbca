// Products of matrices: what the layers' figures are held against.
import { binding, buffer, timed, withBuffers } from '../machine.mjs';
import { inTurns } from '../timing.mjs';

async function square(n, setting, torch) {
	return withBuffers({ a: buffer(n * n), b: buffer(n * n), y: buffer(n * n) }, async ({ a, b, y }) => {
		const ours = timed(() => binding.matmul(a, b, y, n, n, n, false, false));
		const contestants = { ours, again: ours };
		if (torch) contestants['PyTorch (OpenBLAS)'] = torch.contestant({ work: 'matmul', n });
		const times = await inTurns(contestants, { rounds: setting.quick ? 3 : 11, budget: 30 });
		await torch?.ask({ work: 'forget' });
		return { name: 'product of matrices', sizes: { n }, threads: setting.threads, bytes: 12 * n * n, operations: 2 * n ** 3, times };
	});
}

/** Our copy beside PyTorch's: a ceiling that is too low would flatter everything held against it. */
async function copies(setting, torch) {
	const bytes = setting.quick ? 1 << 20 : 256 << 20;
	const n = bytes / 8;
	return withBuffers({ from: buffer(n), to: buffer(n) }, async ({ from, to }) => {
		const ours = timed(() => binding.copyBlock(from, to, 1, n, n, 0, n, 0));
		const contestants = { ours, again: ours };
		if (torch) contestants['PyTorch, copy_'] = torch.contestant({ work: 'copy', bytes });
		const times = await inTurns(contestants, { rounds: setting.quick ? 3 : 15, budget: 30 });
		await torch?.ask({ work: 'forget' });
		return { name: 'copy', sizes: { bytes }, threads: setting.threads, bytes, operations: 0, times };
	});
}

export const name = 'ceilings';

export async function* run(setting, torch) {
	yield copies(setting, torch);
	yield square(setting.quick ? 128 : 1536, setting, torch);
}
