// `npm run bench`: times operations and layers beside the machine's own ceilings and beside peers, prints a line for each, and
// writes bench/results/<date>-<cpu>.json and a page with plots.
//
//   --quick        small sizes, seconds in all: shows that everything runs, says nothing about speed
//   --only NAME    only the cases whose name contains NAME (product, scan, favor, layer, stream, growth, decode, states, roof)
//   --threads N    only with N threads (default: 1, then 2)
//   --out FOLDER   default bench/results
//   --model NAME   of the decoders only NAME: 110m-f32, 110m-f16, 110m-q8_0, 1.1b-q8_0, 1.1b-f16
//   --no-peers     without PyTorch and node-llama-cpp
//
// Decoders have random weights and are written to OPLUS_BENCH_MODELS (default: a temporary folder) at first: 4 GB in all.
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import * as decode from './cases/decode.mjs';
import * as favor from './cases/favor.mjs';
import * as growth from './cases/growth.mjs';
import * as layer from './cases/layer.mjs';
import * as product from './cases/product.mjs';
import * as roof from './cases/roof.mjs';
import * as scan from './cases/scan.mjs';
import * as states from './cases/states.mjs';
import * as stream from './cases/stream.mjs';
import { facts, oplus, root } from './machine.mjs';
import { writePage } from './page.mjs';
import { advice, findLlama } from './peers/llama.mjs';
import { findTorch } from './peers/torch.mjs';
import { lineOf, print } from './report.mjs';

const { values: options } = parseArgs({
	options: {
		quick: { type: 'boolean', default: false },
		only: { type: 'string', multiple: true, default: [] },
		threads: { type: 'string', multiple: true, default: ['1', '2'] },
		out: { type: 'string', default: path.join(root, 'bench', 'results') },
		model: { type: 'string', multiple: true, default: [] },
		'no-peers': { type: 'boolean', default: false },
	},
});
const wanted = ({ name }) => options.only.length === 0 || options.only.some((each) => name.includes(each));

const machine = facts(['node bench/run.mjs', ...process.argv.slice(2)].join(' '));
const torchFor = options['no-peers'] ? undefined : findTorch();
console.log(`${machine.cpu}, ${machine.cores} cores, ${machine.instructions}; Node ${machine.node}; commit ${machine.commit.slice(0, 12)}`);
console.log(
	`load ${machine.load.map((load) => load.toFixed(1)).join(' ')}${torchFor ? '' : '; no PyTorch, so no peers but plain JavaScript'}\n`,
);

const startLlama = options['no-peers'] ? undefined : findLlama();
if (!startLlama) console.log(`no node-llama-cpp beside the decoders; to have it: ${advice}\n`);

const lines = [];
const decoders = [];
const part = options.only.length > 0 ? `-${options.only.join('-')}` : '';
const title = `${machine.date.slice(0, 10)}-${machine.cpu.replaceAll(/[^A-Za-z0-9]+/g, '-').replaceAll(/^-|-$/g, '') || 'cpu'}${part}${options.quick ? '-quick' : ''}`;
const file = path.join(options.out, `${title}.json`);
/** After every case: a run takes an hour, and what was measured shall not be lost with the rest. */
function save(curves = []) {
	fs.mkdirSync(options.out, { recursive: true });
	fs.writeFileSync(file, JSON.stringify({ machine, lines, decoders, curves }, null, 2) + '\n');
}

for (const threads of options.threads.map(Number)) {
	oplus.setThreads(threads);
	const torch = torchFor?.(threads);
	machine.peers ??= torch && { pytorch: (await torch.ask({ work: 'facts' })).version };
	for (const each of [product, scan, favor, layer, stream].filter(wanted)) {
		for await (const measured of each.run({ threads, quick: options.quick }, torch)) {
			const line = lineOf(measured);
			lines.push(line);
			console.log(print(line));
			save();
		}
	}
	torch?.close();
	for (const each of [decode, states, roof].filter(wanted)) {
		for await (const measured of each.run({ threads, quick: options.quick, models: options.model }, startLlama)) {
			const line = lineOf(measured);
			decoders.push(line);
			console.log(print(line));
			save();
		}
	}
}
oplus.setThreads(1);
const curves = wanted(growth) ? await growth.run({ quick: options.quick }) : [];

save(curves);
const page = await writePage(path.join(options.out, `${title}.html`), { machine, lines, decoders, curves });
console.log(`\n${path.relative(process.cwd(), file)}${page ? `, ${path.relative(process.cwd(), page)}` : ''}`);
