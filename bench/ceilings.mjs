// What the machine can do at best, measured beside everything else: a copy of as many bytes, and a product of matrices.
import { binding, buffer, timed } from './machine.mjs';

/**
 * A copy that moves `bytes` in all: half are read, half are written. copyBlock shares large copies out among the threads and
 * writes past the caches, which reaches what the same loop in C does (memcpy, which does not, moves half as much again).
 */
export function copy(bytes) {
	const n = Math.ceil(bytes / 8);
	const from = buffer(n);
	const to = buffer(n);
	const run = timed(() => binding.copyBlock(from, to, 1, n, n, 0, n, 0));
	return {
		run,
		dispose() {
			binding.dispose(from);
			binding.dispose(to);
		},
	};
}

/** A read of `bytes`: numbers that are squared and summed up. Of more than 1 GB that much is read; scale its time to what it stands for. */
export function read(bytes) {
	const n = Math.ceil(Math.min(bytes, 2 ** 30) / 4);
	const from = buffer(n);
	const total = buffer(1);
	const once = timed(() => binding.sumSquares(from, total, n));
	return {
		run: async () => (await once()) * (bytes / (4 * n)),
		dispose() {
			binding.dispose(from);
			binding.dispose(total);
		},
	};
}

/** A square product of about `operations` operations (a multiply-add is two), at most 1536³. Scale its time to what it stands for. */
export function product(operations) {
	const n = Math.min(1536, Math.max(64, Math.round(Math.cbrt(operations / 2) / 64) * 64));
	const [a, b, y] = [buffer(n * n), buffer(n * n), buffer(n * n)];
	const factor = operations / (2 * n ** 3);
	const once = timed(() => binding.matmul(a, b, y, n, n, n, false, true));
	const run = async () => factor * (await once());
	return {
		run,
		dispose() {
			for (const each of [a, b, y]) binding.dispose(each);
		},
	};
}
