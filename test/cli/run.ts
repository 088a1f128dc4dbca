import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

const main = path.join(__dirname, '..', '..', 'dist', 'cli', 'main.js');

export interface Finished {
	readonly code: number | null;
	readonly signal: NodeJS.Signals | null;
	readonly stdout: string;
	readonly stderr: string;
}

/** Run the command line as built. @param watch is called with all that stderr has said, whenever it says more */
export function oplus(
	args: readonly string[],
	watch: (stderr: string, child: ChildProcess) => void = () => undefined,
	env: NodeJS.ProcessEnv = {},
): Promise<Finished> {
	if (!existsSync(main)) throw new Error(`${main} is not there: run \`npm run build\` first`);
	return new Promise((resolve, reject) => {
		const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...env } });
		let stdout = '';
		let stderr = '';
		child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
		child.stderr.setEncoding('utf8').on('data', (text: string) => {
			stderr += text;
			watch(stderr, child);
		});
		child.on('error', reject);
		child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
	});
}
