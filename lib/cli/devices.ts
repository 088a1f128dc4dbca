import type { Command } from 'commander';
import { devices } from '../device.js';
import { command, table } from './session.js';

function size(bytes: number): string {
	return bytes > 0 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : 'unknown';
}

export function devicesCommand(): Command {
	return command('devices', 'List what oplus can run on, and say why not on more.', async (_, session) => {
		const found = devices();
		const rows = found.map(({ name, model, memory, architecture, threads }) => [
			name,
			model,
			architecture,
			threads ? `${threads}` : '',
			size(memory),
		]);
		const absent = found.absent.map(({ name, reason }) => `${name} is not there: ${reason}`);
		session.result(
			{ devices: [...found], absent: found.absent },
			[table(['device', 'model', 'architecture', 'threads', 'memory'], rows), ...absent].join('\n'),
		);
	});
}
