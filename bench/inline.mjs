// What it costs to hand a small operation to the queue's thread instead of running it at once: the measurement behind
// kInlineCost in native/core/runtime.h.
//
//   node bench/inline.mjs [--threads N]
//
// An operation runs inline when the queue is idle and its cost is at most kInlineCost. Here a `synchronize` right before it
// makes the queue busy, so that the same call is handed over. Columns, in µs, medians:
//   call, inline     the call: the whole work, on the caller's thread
//   call, queued     the call while the queue has work before it: what it keeps the caller for
//   result, inline   from the call until its result has been read
//   result, queued   the same through the queue: the thread is woken, works, and wakes JavaScript's
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { binding, buffer, facts } from './machine.mjs';
import { median, quantile } from './timing.mjs';

const { values } = parseArgs({ options: { threads: { type: 'string', default: '1' } } });
const rounds = 400;

/** One operation of about `cost` multiply-adds (a row times a matrix) or elements. */
function subjects(cost) {
	const width = Math.round(Math.sqrt(cost));
	const [row, matrix, y] = [buffer(width), buffer(width * width), buffer(width)];
	const n = cost / 2; // elements read and elements written both count
	const [x, z] = [buffer(n), buffer(n)];
	return [
		{
			name: 'linear, one row',
			cost: width * width,
			result: y,
			call: () => binding.linear(row, matrix, null, y, 1, width, width),
			held: [row, matrix, y],
		},
		{ name: 'scale', cost, result: z, call: () => binding.scale(x, z, 1.5, n), held: [x, z] },
	];
}

const microseconds = () => Number(process.hrtime.bigint()) / 1e3;

async function measure({ call, result }) {
	// Of a large result reading would be most of the time: one number of it is looked at.
	const first = buffer(1);
	const look = () => {
		binding.copyBlock(result, first, 1, 1, 1, 0, 1, 0);
		return binding.read(first);
	};
	const times = { callInline: [], callQueued: [], resultInline: [], resultQueued: [] };
	for (let round = -50; round < rounds; round++) {
		const samples = {};
		await binding.synchronize('cpu');
		if (round % 10 === 0) await sleep(1); // the queue's thread is asleep, as it is between the steps of a real stream
		let start = microseconds();
		call();
		samples.callInline = microseconds() - start;
		await look();
		samples.resultInline = microseconds() - start;

		start = microseconds();
		const before = binding.synchronize('cpu');
		const called = microseconds();
		call();
		samples.callQueued = microseconds() - called;
		await look();
		samples.resultQueued = microseconds() - start;
		await before;
		if (round >= 0) for (const [name, time] of Object.entries(samples)) times[name].push(time);
	}
	binding.dispose(first);
	return times;
}

binding.setThreads(Number(values.threads));
const machine = facts('node bench/inline.mjs');
console.log(
	`${machine.cpu}, ${machine.cores} cores, ${machine.instructions}; Node ${machine.node}; load ${machine.load[0].toFixed(1)}; ${machine.date}\n`,
);
console.log('| operation | cost | call, inline | call, queued | result, inline | result, queued | queue adds (median, p90) |');
console.log('|---|---|---|---|---|---|---|');
for (let exponent = 6; exponent <= 18; exponent += 2) {
	for (const subject of subjects(2 ** exponent)) {
		const { callInline, callQueued, resultInline, resultQueued } = await measure(subject);
		const added = resultQueued.map((time, i) => time - resultInline[i]);
		const numbers = [callInline, callQueued, resultInline, resultQueued].map((times) => median(times).toFixed(1));
		console.log(
			`| ${subject.name} | 2^${exponent} | ${numbers.join(' | ')} | ${median(added).toFixed(1)}, ${quantile(added, 0.9).toFixed(1)} |`,
		);
		for (const each of subject.held) binding.dispose(each);
	}
}
