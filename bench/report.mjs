// One line of figures: how it is put together from times, and how it is printed.
import { median, quantile, ratio } from './timing.mjs';

/**
 * @typedef {{ name: string, sizes: Record<string, number>, threads: number, bytes: number, operations: number, times:
 * Record<string, number[]>, ceiling?: string, goals?: Goal[], tokens?: number }} Measured
 * `tokens`: of a decoder, that one such time brings on; `times` holds `ours`, `again` (the same once more: the noise), the ceiling under its name, and every peer.
 * @typedef {{ what: string, atLeast?: number, below?: number, found: (line: any) => number | undefined }} Goal
 */

/** @param {Measured} measured */
export function lineOf({ name, sizes, threads, bytes, operations, times, ceiling, goals = [], tokens }) {
	const { ours, again, ...others } = times;
	const seconds = median(ours);
	const line = {
		name,
		sizes,
		threads,
		seconds,
		p99: quantile(ours, 0.99),
		rounds: ours.length,
		noise: again ? Math.abs(1 - ratio(again, ours)) : 0,
	};
	if (tokens !== undefined) Object.assign(line, { tokens, tokensPerSecond: tokens / seconds });
	Object.assign(line, { bytes, operations, bytesPerSecond: bytes / seconds, operationsPerSecond: operations / seconds });
	line.peers = {};
	for (const [peer, taken] of Object.entries(others)) {
		if (peer === ceiling) line.ceiling = { name: peer, seconds: median(taken), fraction: ratio(taken, ours) };
		else line.peers[peer] = { seconds: median(taken), ratio: taken.length === ours.length ? ratio(taken, ours) : median(taken) / seconds };
	}
	line.goals = goals.flatMap(({ what, atLeast, below, found }) => {
		const value = found(line);
		if (value === undefined) return [];
		return [
			{
				what,
				...(atLeast !== undefined ? { atLeast } : { below }),
				found: value,
				met: atLeast !== undefined ? value >= atLeast : value < below,
			},
		];
	});
	return line;
}

/** The smallest ratio to any peer whose name begins with `prefix`: the fastest of its forms. */
export function fastestPeer(line, prefix) {
	const ratios = Object.entries(line.peers).flatMap(([name, peer]) => (name.startsWith(prefix) ? [peer.ratio] : []));
	return ratios.length > 0 ? Math.min(...ratios) : undefined;
}

const units = [
	[1e9, 'G'],
	[1e6, 'M'],
	[1e3, 'k'],
];

/** 27.3 G, 4.19 M */
export function metric(value) {
	const [factor, letter] = units.find(([size]) => value >= size) ?? [1, ''];
	return `${Number((value / factor).toPrecision(3))} ${letter}`;
}

export function time(seconds) {
	if (seconds >= 1) return `${seconds.toPrecision(3)} s`;
	if (seconds >= 1e-3) return `${(seconds * 1e3).toPrecision(3)} ms`;
	return `${(seconds * 1e6).toPrecision(3)} µs`;
}

const percent = (share) => `${Math.round(100 * share)} %`;

/** Lines of text for one line of figures. */
export function print(line) {
	const sizes = Object.entries(line.sizes).map(([name, size]) => `${name}=${size}`);
	const text = [
		`${line.name}  ${sizes.join(' ')}  ${line.threads} ${line.threads === 1 ? 'thread' : 'threads'}`,
		`    ${time(line.seconds)} (p99 ${time(line.p99)}, noise ${percent(line.noise)}, ${line.rounds} rounds)` +
			`  ${metric(line.bytes)}B at ${metric(line.bytesPerSecond)}B/s  ${metric(line.operations)}FLOP at ${metric(line.operationsPerSecond)}FLOP/s`,
	];
	if (line.tokens) text.push(`    ${Number(line.tokensPerSecond.toPrecision(3))} tokens/s`);
	if (line.ceiling) text.push(`    ${percent(line.ceiling.fraction)} of ${line.ceiling.name} (${time(line.ceiling.seconds)})`);
	const peers = Object.entries(line.peers).map(([name, { seconds, ratio }]) => `${name} ${time(seconds)} = ${ratio.toPrecision(3)} ×`);
	if (peers.length > 0) text.push(`    ${peers.join(', ')}`);
	for (const { what, found, met } of line.goals) text.push(`    ${met ? 'met' : 'MISSED'}: ${what}; found ${Number(found.toPrecision(3))}`);
	return text.join('\n');
}
