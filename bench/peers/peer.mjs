// A peer that runs as a process of its own: one JSON request a line in, one answer a line out, one at a time.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export class Peer {
	#name;
	#child;
	#answers;

	/** @param {string} name for messages @param {Record<string, string | undefined>} environment all of it */
	constructor(name, command, args, environment) {
		this.#name = name;
		this.#child = spawn(command, args, { env: environment, stdio: ['pipe', 'pipe', 'inherit'] });
		this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
	}

	/** @returns {Promise<any>} the answer to one line */
	async ask(request) {
		this.#child.stdin.write(JSON.stringify(request) + '\n');
		const { value, done } = await this.#answers.next();
		if (done) throw new Error(`${this.#name} ended while it ran ${JSON.stringify(request)}`);
		const answer = JSON.parse(value);
		if (answer.error) throw new Error(`${this.#name}: ${answer.error}`);
		return answer;
	}

	/** A contestant for `inTurns`: one run of `request`, in seconds. */
	contestant(request) {
		return async () => (await this.ask(request)).seconds[0];
	}

	close() {
		this.#child.stdin.end();
	}
}
