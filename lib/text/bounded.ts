import vm from 'node:vm';

const script = new vm.Script('run()');
let context: vm.Context | undefined;

/** What `bounded` throws when time is up. */
export class TimeUp extends Error {}

/**
 * Run a function that a file has a say in: an endless loop or a regular expression that goes through everything ends after this many
 * milliseconds. Takes 0.06 ms itself. Memory is not bounded.
 * @throws TimeUp, and whatever `run` throws
 */
export function bounded<T>(milliseconds: number, run: () => T): T {
	context ??= vm.createContext(Object.create(null));
	const outer = context.run;
	context.run = run;
	try {
		return script.runInContext(context, { timeout: milliseconds });
	} catch (error) {
		if ((error as NodeJS.ErrnoException)?.code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
		throw new TimeUp(`this took more than ${milliseconds} ms`, { cause: error });
	} finally {
		context.run = outer;
	}
}
