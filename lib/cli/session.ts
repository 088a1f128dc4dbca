import { SingleBar } from 'cli-progress';
import { Command, InvalidArgumentError, Option } from 'commander';
import { type DeviceName, devices } from '../device.js';
import { DeviceError } from '../errors.js';

/** What every command takes. */
export interface CommonOptions {
	readonly device: DeviceName;
	readonly seed: number;
	readonly json: boolean;
}

/** What a command talks to the outside through: results to stdout, everything else to stderr. */
export class Session {
	/** Aborted by Ctrl-C. */
	readonly signal: AbortSignal;
	readonly #json: boolean;
	#bar: SingleBar | undefined;

	constructor(json: boolean, signal: AbortSignal) {
		this.#json = json;
		this.signal = signal;
	}

	/** A line for the person who waits. */
	log(text: string): void {
		this.#bar?.stop();
		this.#bar = undefined;
		process.stderr.write(`${text}\n`);
	}

	/** How far the work is. A bar on a terminal; nothing elsewhere. @param done from 0 to 1 */
	progress(label: string, done: number, note = ''): void {
		if (!process.stderr.isTTY) return;
		if (!this.#bar) {
			this.#bar = new SingleBar({
				format: '{label} {bar} {percentage}% {note}',
				stream: process.stderr,
				hideCursor: true,
				barsize: 30,
				clearOnComplete: true,
			});
			this.#bar.start(1000, 0, { label, note });
		}
		this.#bar.update(Math.round(done * 1000), { label, note });
	}

	/** Take the bar away. */
	done(): void {
		this.#bar?.stop();
		this.#bar = undefined;
	}

	/** What the command found: one JSON object with `--json`, else the text. */
	result(found: object, text: string): void {
		this.done();
		process.stdout.write(this.#json ? `${JSON.stringify(found)}\n` : `${text}\n`);
	}
}

/** A whole number from `least` on, as an option's value. */
export function integer(least: number): (text: string) => number {
	return (text) => {
		const value = Number(text);
		if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least)
			throw new InvalidArgumentError(`expected an integer from ${least}.`);
		return value;
	};
}

/** A number within [least, most]. */
export function number(least: number, most = Number.MAX_VALUE): (text: string) => number {
	return (text) => {
		const value = Number(text);
		if (text.trim() === '' || !(value >= least && value <= most))
			throw new InvalidArgumentError(`expected a number from ${least}${most < Number.MAX_VALUE ? ` to ${most}` : ''}.`);
		return value;
	};
}

/** Values with commas between. */
export function list<T>(item: (text: string) => T): (text: string) => T[] {
	return (text) => text.split(',').map((part) => item(part.trim()));
}

/** One of some names. */
export function oneOf<const N extends string>(...names: readonly N[]): (text: string) => N {
	return (text) => {
		if (!names.includes(text as N)) throw new InvalidArgumentError(`expected one of ${names.join(', ')}.`);
		return text as N;
	};
}

function deviceName(text: string): DeviceName {
	if (!/^(cpu|cuda(:\d+)?)$/.test(text)) throw new InvalidArgumentError('expected cpu, cuda or cuda:N.');
	return text as DeviceName;
}

/** @throws DeviceError that says why the device is not there */
function present(name: DeviceName): void {
	const found = devices();
	const wanted = name === 'cuda' ? 'cuda:0' : name;
	if (found.some((device) => device.name === wanted)) return;
	const reason = found.absent.map((absent) => `${absent.name}: ${absent.reason}`).join('; ');
	throw new DeviceError(
		`device ${name} is not there, expected one of ${found.map((device) => device.name).join(', ')}${reason && ` (${reason})`}`,
	);
}

/** Ctrl-C, as a reason to stop. */
export class Interrupted extends Error {
	override readonly name = 'Interrupted';

	constructor() {
		super('interrupted');
	}
}

/**
 * A command with the options that every command has.
 * @param run gets the options given, common and own, and the session
 */
export function command<Own extends object>(
	name: string,
	description: string,
	run: (options: Own & CommonOptions, session: Session) => Promise<void>,
): Command {
	return new Command(name)
		.description(description)
		.addOption(new Option('--device <name>', 'cpu, cuda or cuda:N').default('cpu').argParser(deviceName))
		.addOption(new Option('--seed <n>', 'of everything that is drawn').default(0).argParser(seedOf))
		.option('--json', 'print one JSON object, and nothing else, on stdout', false)
		.allowExcessArguments(false)
		.action(async (options: Own & CommonOptions) => {
			const controller = new AbortController();
			// Once: a second Ctrl-C finds no listener and ends the process as usual.
			const stop = () => controller.abort(new Interrupted());
			process.once('SIGINT', stop);
			const session = new Session(options.json, controller.signal);
			try {
				present(options.device);
				await run(options, session);
			} finally {
				session.done();
				process.off('SIGINT', stop);
			}
		});
}

function seedOf(text: string): number {
	const value = integer(0)(text);
	if (value >= 2 ** 31) throw new InvalidArgumentError('expected an integer below 2147483648.');
	return value;
}

/** Rows of cells, each column as wide as its widest; the first to the left, the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
	const all = [head, ...rows];
	const widths = head.map((_, i) => Math.max(...all.map((row) => row[i]!.length)));
	return all
		.map((row) =>
			row
				.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
				.join('  ')
				.trimEnd(),
		)
		.join('\n');
}
