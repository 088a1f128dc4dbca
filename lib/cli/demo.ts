import type { Command } from 'commander';
import { command } from './session.js';
export function demo(): Command {
	return command('demo', 'x', async () => undefined);
}
