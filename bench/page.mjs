// The figures as a page: one file with its plots inside.
import fs from 'node:fs';
import { require } from './machine.mjs';
import { metric, time } from './report.mjs';

const { lineChart } = require('../dist/plot.js');
const { htmlReport } = require('../dist/report.js');

const percent = (share) => `${Math.round(100 * share)} %`;

function tableOf(lines) {
	const head = ['work', 'threads', 'time', 'noise', 'must move', 'operations', 'of its ceiling', 'times as fast as', 'goals'];
	const rows = lines.map((line) => [
		`${line.name} (${Object.entries(line.sizes)
			.map(([name, size]) => `${name}\u00a0${size}`)
			.join(', ')})`,
		`${line.threads}`,
		time(line.seconds),
		percent(line.noise),
		`${metric(line.bytes)}B`,
		metric(line.operations),
		line.ceiling ? `${percent(line.ceiling.fraction)} of ${line.ceiling.name}` : '',
		Object.entries(line.peers)
			.map(([name, { ratio }]) => `${name}: ${ratio.toPrecision(3)} ×`)
			.join('; '),
		line.goals.map(({ what, met }) => `${what}: ${met ? 'met' : 'missed'}`).join('; '),
	]);
	return { head, rows };
}

function chart(title, unit, curves, value, log = true) {
	const lines = curves.map(({ name, points }) => ({
		name,
		points: points.map((point) => [point.tokens, value(point)]),
		dashed: name !== 'Aaren',
	}));
	return lineChart({ title, x: { title: 'tokens seen', log: true }, y: { title: unit, log }, lines });
}

async function growthOf(curves) {
	const p99 = curves.map(({ name, points }) => ({ name: `${name}, p99`, points: points.map((point) => ({ ...point, p50: point.p99 })) }));
	const { C, H, hidden } = curves[0].sizes;
	return {
		heading: 'How the cost grows with the length of a stream',
		text: [
			`One block of width ${C}, ${H} heads, feed-forward width ${hidden}, one token at a time, one thread, f32. Aaren's state has one size; a cache ` +
				'of keys and values grows with every token, and so does the time of a step.',
		],
		charts: [
			await chart('State', 'bytes of state', curves, ({ stateBytes }) => stateBytes),
			await chart('Time per token, median and 99th percentile of the last steps', 'µs', [...curves, ...p99], ({ p50 }) => p50 * 1e6),
			await chart('Time of the whole stream', 'seconds in all', curves, ({ totalSeconds }) => totalSeconds),
		],
	};
}

const only = (values) => [...new Set(values)];

/** Decoders: the figures, and for the largest number of threads how throughput grows as states become fewer. */
async function decodersOf(lines) {
	const { head, rows } = tableOf(lines);
	const figures = {
		heading: 'Decoding a LLaMA',
		text: [
			'Weights are random and the same for all. Times are of a step, which brings every sequence on by one token. What must move is all weights and ' +
				'the states of all sequences, once. node-llama-cpp is called without sampling; pinned: its threads on cores of their own.',
		],
		table: {
			head: [head[0], 'tokens/s', ...head.slice(1)],
			rows: rows.map(([work, ...rest], i) => [work, metric(lines[i].tokensPerSecond), ...rest]),
		},
		charts: [],
	};
	const threads = Math.max(...lines.map((line) => line.threads));
	const bounded = lines.filter((line) => line.name === 'decode, bounded' && line.threads === threads && line.sizes.cache === 'f16');
	for (const batch of only(bounded.map(({ sizes }) => sizes.batch))) {
		const of = (policy) => bounded.filter(({ sizes }) => sizes.batch === batch && sizes.policy === policy);
		const curve = (name, policy, value) => ({
			name,
			points: of(policy).map((line) => [line.sizes.S, value(line)]),
			dashed: policy === 'full',
		});
		const roof = ({ ceiling, tokens }) => tokens / ceiling.seconds;
		const curves = only(bounded.map(({ sizes }) => sizes.policy)).map((policy) => curve(policy, policy, (line) => line.tokensPerSecond));
		const title = `Tokens a second against states, batch ${batch}, cache of f16, ${threads} threads`;
		const axes = { x: { title: 'states', log: true }, y: { title: 'tokens/s', log: true } };
		figures.charts.push(await lineChart({ title, ...axes, lines: [...curves, { ...curve('a read', 'tova', roof), dashed: true }] }));
	}
	const same = lines.filter((line) => line.name.startsWith('decode in the same memory') && line.threads === threads);
	if (same.length > 0) {
		const cut = ({ sizes }) => sizes.of / sizes.S;
		const measured = { name: 'tova', points: same.map((line) => [cut(line), line.peers['every state'].ratio]) };
		const roof = { name: 'memory roof', points: same.map((line) => [cut(line), cut(line)]), dashed: true };
		const title = 'Tokens a second in the same memory, against those with every state';
		const axes = { x: { title: 'states are cut by', log: true }, y: { title: 'times as many tokens', log: true } };
		figures.charts.push(await lineChart({ title, ...axes, lines: [measured, roof] }));
	}
	return figures;
}

/** Linear against quadratic: time over length, as the Performer paper's figure 3. */
async function lengthsOf(lines) {
	const threads = Math.max(...lines.map((line) => line.threads));
	const charts = [];
	for (const title of only(lines.map((line) => line.name))) {
		const of = lines.filter((line) => line.name === title && line.threads === threads);
		const peers = only(of.flatMap((line) => Object.keys(line.peers)));
		const curves = [
			{ name: 'FAVOR+', points: of.map((line) => [line.sizes.T, line.seconds]) },
			...peers.map((name) => ({
				name,
				points: of.flatMap((line) => (line.peers[name] ? [[line.sizes.T, line.peers[name].seconds]] : [])),
				dashed: true,
			})),
		];
		const { H, D, M } = of[0].sizes;
		const heading = `${title}: ${H} heads of ${D}, ${M} features, ${threads} threads`;
		charts.push(await lineChart({ title: heading, x: { title: 'tokens', log: true }, y: { title: 'seconds', log: true }, lines: curves }));
	}
	return {
		heading: 'Linear attention over length',
		text: ['Each curve is the time of a whole sequence. X returns v, which is a copy: what attention could cost at least.'],
		charts,
	};
}

/** @returns the file's name */
export async function writePage(file, { machine, lines, decoders, curves }) {
	const { cpu, cores, instructions, node, date, commit, command, load, peers } = machine;
	const sections = [
		{
			heading: 'Figures',
			text: [
				'Medians; everything in a line ran in turns within one run. The noise is how far the same work, timed twice, differs. A ratio says how many ' +
					'times as long the peer took. A ceiling is a copy of as many bytes as must move, or the library’s own rate for products of matrices.',
			],
			table: tableOf(lines),
		},
	];
	const lengths = lines.filter((line) => line.name.startsWith('FAVOR+ causal'));
	if (lengths.length > 0) sections.push(await lengthsOf(lengths));
	if (decoders.length > 0) sections.push(await decodersOf(decoders));
	if (curves.length > 0) sections.push(await growthOf(curves));
	const lead =
		`${cpu}, ${cores} cores (${instructions}), Node ${node}${peers ? `, PyTorch ${peers.pytorch}` : ''}; ${date}, commit ${commit.slice(0, 12)}, ` +
		`load ${load[0].toFixed(1)} at the start; ${command}`;
	fs.writeFileSync(file, htmlReport({ title: 'oplus: how fast', lead, sections }));
	return file;
}
