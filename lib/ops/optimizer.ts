import { binding } from '../binding.js';
import { ArgumentError, ShapeError } from '../errors.js';
import type { Tensor } from '../tensor.js';

export interface AdamwStep {
	/** Learning rate. */
	readonly rate: number;
	/** How many steps with this one: from 1. The bias corrections are 1 − beta^step. */
	readonly step: number;
	/** @default 0.9 */
	readonly beta1?: number;
	/** @default 0.999 */
	readonly beta2?: number;
	/** @default 1e-8 */
	readonly epsilon?: number;
	/** Weight decay, decoupled from the gradient. @default 0 */
	readonly decay?: number;
	/** The gradient is scaled by min(1, clip / √total). Needs `total`; 0: no clipping. @default 0 */
	readonly clip?: number;
	/** Of size 1: Σ g² over all parameters (`sumSquares`). */
	readonly total?: Tensor | null;
}

function same(where: string, first: Tensor, others: Readonly<Record<string, Tensor>>): void {
	for (const [name, other] of Object.entries(others)) {
		if (other.size !== first.size)
			throw new ShapeError(`${where}: \`${name}\` holds ${other.size} elements, expected ${first.size} as \`p\``);
	}
}

/**
 * One AdamW step, in place: p ← p − rate · (m̂ / (√v̂ + epsilon) + decay · p). Not recorded.
 * @param p the parameter
 * @param g its gradient
 * @param m running mean of g; 0 before the first step
 * @param v running mean of g²; 0 before the first step
 * @see Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2
 */
export function adamw(p: Tensor, g: Tensor, m: Tensor, v: Tensor, options: AdamwStep): void {
	const { rate, step, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0, clip = 0, total = null } = options;
	same('adamw', p, { g, m, v });
	if (!Number.isInteger(step) || step < 1) throw new ArgumentError(`adamw: step is ${step}, expected an integer from 1`);
	if (clip > 0 && !total) throw new ArgumentError(`adamw: clip is ${clip} without \`total\`, expected the sum of squares of all gradients`);
	// The operation's betas are f32, and 1 − beta would be off by 1 part in 10⁵ if the corrections were of the unrounded ones.
	const correction1 = 1 - Math.fround(beta1) ** step;
	const correction2 = 1 - Math.fround(beta2) ** step;
	binding.adamw(
		p.buffer,
		g.buffer,
		m.buffer,
		v.buffer,
		total?.buffer ?? null,
		clip,
		rate,
		beta1,
		beta2,
		epsilon,
		decay,
		correction1,
		correction2,
		p.size,
	);
}

/** total ← total + Σ x², in place. Not recorded. @param total of size 1 */
export function sumSquares(x: Tensor, total: Tensor): void {
	if (total.size !== 1) throw new ShapeError(`sumSquares: \`total\` has shape [${total.shape.join(', ')}], expected one element`);
	binding.sumSquares(x.buffer, total.buffer, x.size);
}
