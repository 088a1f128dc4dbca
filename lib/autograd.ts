import { binding } from './binding.js';
import { ShapeError } from './errors.js';
import { persist, setBackward, Tensor } from './tensor.js';

/**
 * The tape: a graph from results to what they were made from. Every operation with a gradient calls `record` with a
 * function from the gradients of its results to those of its inputs; `backward` walks the graph once, newest first.
 */
export interface Node {
	/** Grows with every node, so an order by it is an order of dependence. */
	readonly order: number;
	readonly inputs: readonly (Tensor | null | undefined)[];
	readonly outputs: readonly Tensor[];
	/** Gradients of the outputs (null where none arrived) → gradients of the inputs (null where there is none to bring). */
	readonly gradient: (g: readonly (Tensor | null)[]) => readonly (Tensor | null | undefined)[];
}

let recording = true;
let nodes = 0;

/** Whether operations on tensors that need gradients are written on the tape now. */
export function isRecording(): boolean {
	return recording;
}

/** Run `fn` without a tape: for evaluation and streaming. Results need no gradient. `fn` must not be async. */
export function noGrad<R>(fn: () => R): R {
	const before = recording;
	recording = false;
	try {
		return fn();
	} finally {
		recording = before;
	}
}

/** Whether an operation on these inputs must be recorded: lets an operation skip what only its gradient needs. */
export function needsGrad(...inputs: readonly (Tensor | null | undefined)[]): boolean {
	return recording && anyNeeds(inputs);
}

function anyNeeds(inputs: Node['inputs']): boolean {
	for (const input of inputs) if (input?.requiresGrad) return true;
	return false;
}

/** Put an operation on the tape, if any input needs a gradient. */
export function record(inputs: Node['inputs'], outputs: readonly Tensor[], gradient: Node['gradient']): void {
	if (!recording || !anyNeeds(inputs)) return;
	const node: Node = { order: nodes++, inputs, outputs, gradient };
	for (const output of outputs) {
		output.requiresGrad = true;
		output.node = node;
	}
}

function addTo(sum: Tensor, g: Tensor): void {
	binding.accumulate(g.buffer, sum.buffer, sum.size);
}

/** A copy that may be added to: what an operation returns as a gradient may be shared (`add` returns the same one twice). */
function copyOf(g: Tensor): Tensor {
	const copy = Tensor.empty(g.shape, g.device);
	binding.scale(g.buffer, copy.buffer, 1, g.size);
	return copy;
}

function backward(loss: Tensor): void {
	if (loss.size !== 1) throw new ShapeError(`backward: the tensor has shape [${loss.shape.join(', ')}], expected a scalar`);
	const one = Tensor.empty(loss.shape, loss.device);
	binding.fill(one.buffer, 1, 1);
	noGrad(() => walk(loss, one));
}

/** What is known of a tensor's gradient so far. `own` says whether the sum may be added to in place. */
interface Arrived {
	sum: Tensor;
	own: boolean;
}

/**
 * The gradients on their way. Each is freed as soon as nothing waits for it any more, so that the walk holds about as many as
 * the tape is wide, not as it is long.
 */
class Gradients {
	readonly #arrived = new Map<Tensor, Arrived>();
	readonly #waiting = new Map<Tensor, number>();

	of(tensor: Tensor): Tensor | null {
		return this.#arrived.get(tensor)?.sum ?? null;
	}

	arrive(tensor: Tensor, gradient: Tensor): void {
		const before = this.#arrived.get(tensor);
		if (!before) {
			this.#hold(gradient);
			this.#arrived.set(tensor, { sum: gradient, own: false });
			return;
		}
		if (!before.own) {
			const own = copyOf(before.sum);
			this.#hold(own);
			this.#letGo(before.sum);
			before.sum = own;
			before.own = true;
		}
		addTo(before.sum, gradient);
	}

	/** Whatever came for this tensor has been handed on. */
	done(tensor: Tensor): void {
		const arrived = this.#arrived.get(tensor);
		this.#arrived.delete(tensor);
		if (arrived) this.#letGo(arrived.sum);
	}

	/** Gradients of tensors that no operation made: parameters and inputs. */
	leaves(): [Tensor, Tensor][] {
		return [...this.#arrived].filter(([tensor]) => !tensor.node).map(([tensor, { sum }]) => [tensor, sum]);
	}

	isHeld(gradient: Tensor): boolean {
		return this.#waiting.has(gradient);
	}

	#hold(gradient: Tensor): void {
		this.#waiting.set(gradient, (this.#waiting.get(gradient) ?? 0) + 1);
	}

	#letGo(gradient: Tensor): void {
		const left = this.#waiting.get(gradient)! - 1;
		if (left > 0) {
			this.#waiting.set(gradient, left);
		} else {
			this.#waiting.delete(gradient);
			gradient.dispose();
		}
	}
}

function walk(loss: Tensor, one: Tensor): void {
	const gradients = new Gradients();
	gradients.arrive(loss, one);
	for (const node of order(loss)) {
		const g = node.outputs.map((output) => gradients.of(output));
		if (g.some((item) => item !== null)) {
			const brought = node.gradient(g);
			node.inputs.forEach((input, i) => {
				if (brought[i] && input?.requiresGrad) gradients.arrive(input, brought[i]);
			});
			for (const gradient of brought) if (gradient && !gradients.isHeld(gradient)) gradient.dispose();
		}
		for (const output of node.outputs) gradients.done(output);
	}
	for (const [leaf, sum] of gradients.leaves()) {
		if (leaf.grad) addTo(leaf.grad, sum);
		else leaf.grad = persist(copyOf(sum));
		gradients.done(leaf);
	}
}

/** Every node that the loss depends on, newest first. Not recursive: a tape may be a million operations deep. */
function order(loss: Tensor): Node[] {
	const seen = new Set<Node>();
	const open = loss.node ? [loss.node] : [];
	for (let node = open.pop(); node; node = open.pop()) {
		if (seen.has(node)) continue;
		seen.add(node);
		for (const input of node.inputs) if (input?.node && !seen.has(input.node)) open.push(input.node);
	}
	return [...seen].sort((a, b) => b.order - a.order);
}

setBackward(backward);
