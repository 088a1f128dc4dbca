#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import { ArgumentError } from '../errors.js';
import { analyze } from './analyze.js';
import { demo } from './demo.js';
import { devicesCommand } from './devices.js';
import { forecast } from './forecast.js';
import { generate } from './generate.js';
import { perplexity } from './perplexity.js';
import { protein } from './protein.js';
import { stream } from './stream.js';

/** Exit codes: 0 done, 1 failed, 2 wrong usage. */
const failed = 1;
const wrongUsage = 2;

function version(): string {
	const file = path.join(path.dirname(path.dirname(__dirname)), 'package.json');
	return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

/** One line that says what went wrong. */
function sentence(error: unknown): string {
	if (!(error instanceof Error)) return String(error);
	const { code, path: file } = error as NodeJS.ErrnoException;
	if (file && code === 'ENOENT') return `${file}: no such file`;
	if (file && code === 'EISDIR') return `${file}: is a folder, expected a file`;
	if (file && code === 'EACCES') return `${file}: may not be opened (permission denied)`;
	return error.message;
}

function program(): Command {
	const root = new Command('oplus')
		.description('Attention that runs in constant memory: trains, forecasts, streams.')
		.version(version())
		.showHelpAfterError('(--help shows what there is)');
	for (const item of [devicesCommand(), forecast(), stream(), generate(), perplexity(), protein(), analyze(), demo()])
		root.addCommand(item);
	// Commander calls process.exit otherwise, which can cut off what is still on its way to a pipe.
	for (const item of [root, ...root.commands]) item.exitOverride();
	return root;
}

async function main(): Promise<void> {
	// Whoever reads our output may leave early (`oplus … | head -1`): that is their right and no error.
	process.stdout.on('error', (error: NodeJS.ErrnoException) => {
		if (error.code !== 'EPIPE') throw error;
		process.exit(0);
	});
	try {
		await program().parseAsync();
	} catch (error) {
		if (error instanceof CommanderError) {
			process.exitCode = error.exitCode === 0 ? 0 : wrongUsage; // it has said what was wrong
			return;
		}
		process.stderr.write(`oplus: ${sentence(error)}\n`);
		if (process.env.OPLUS_DEBUG === '1') process.stderr.write(`${(error as Error).stack ?? error}\n`);
		process.exitCode = error instanceof ArgumentError ? wrongUsage : failed;
	}
}

void main();
