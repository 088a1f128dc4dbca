import { record } from '../autograd.js';
import { binding } from '../binding.js';
import { count, dims } from '../dims.js';
import { ArgumentError, ShapeError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { zeros } from './zeros.js';

/** How often `b` is repeated to cover `a`: its shape must be the end of a's. */
function repeats(where: string, a: Tensor, b: Tensor): number {
	dims(where, { a: [a, '…'], b: [b, '…'] });
	const offset = a.shape.length - b.shape.length;
	let fits = offset >= 0;
	for (let axis = 0; fits && axis < b.shape.length; axis++) fits = b.shape[axis] === a.shape[axis + offset];
	if (!fits) throw new ShapeError(`${where}: \`b\` has shape [${b.shape.join(', ')}], expected the end of [${a.shape.join(', ')}]`);
	let rows = 1;
	for (let axis = 0; axis < offset; axis++) rows *= a.shape[axis]!;
	return rows;
}

/** Slices and the like move 32-bit elements, whatever they mean. */
function check32(where: string, x: Tensor): void {
	if (x.dtype !== 'f32' && x.dtype !== 'i32') throw new ArgumentError(`${where}: found ${x.dtype}, expected f32 or i32`);
}

/** Sums the gradient of a repeated operand over its repetitions. */
function fold(g: Tensor, b: Tensor, rows: number): Tensor {
	if (rows === 1) return g.shape.length === b.shape.length ? g : g.view(b.shape);
	const sum = Tensor.empty(b.shape, b.device);
	binding.sum(g.buffer, sum.buffer, 1, rows, b.size);
	return sum;
}

/**
 * a + b.
 * @param a any shape
 * @param b a's shape, or the end of it (then it is repeated: a bias, a positional encoding)
 */
export function add(a: Tensor, b: Tensor): Tensor {
	const rows = repeats('add', a, b);
	const y = Tensor.empty(a.shape, a.device);
	binding.add(a.buffer, b.buffer, y.buffer, rows, b.size);
	record([a, b], [y], ([g]) => [g, b.requiresGrad ? fold(g!, b, rows) : null]);
	return y;
}

/** a · b, element by element; shapes as for `add`. */
export function mul(a: Tensor, b: Tensor): Tensor {
	const rows = repeats('mul', a, b);
	const y = Tensor.empty(a.shape, a.device);
	binding.mul(a.buffer, b.buffer, y.buffer, rows, b.size);
	record([a, b], [y], ([g]) => {
		const da = a.requiresGrad ? mul(g!, b) : null;
		if (!b.requiresGrad) return [da, null];
		const product = mul(g!, a);
		const db = fold(product, b, rows);
		if (db !== product) product.dispose();
		return [da, db];
	});
	return y;
}

/** factor · x */
export function scale(x: Tensor, factor: number): Tensor {
	dims('scale', { x: [x, '…'] });
	if (!Number.isFinite(factor)) throw new ArgumentError(`scale: factor is ${factor}, expected a finite number`);
	const y = Tensor.empty(x.shape, x.device);
	binding.scale(x.buffer, y.buffer, factor, x.size);
	record([x], [y], ([g]) => [scale(g!, factor)]);
	return y;
}

/** The same numbers in another shape of the same size; shares the memory. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
	const y = x.view(shape);
	record([x], [y], ([g]) => [g!.view(x.shape)]);
	return y;
}

/**
 * Elements [start, end) along one axis.
 * @param axis counted from 0; negative counts from the last
 */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
	check32('slice', x);
	const at = axis < 0 ? axis + x.shape.length : axis;
	const size = x.shape[at];
	if (size === undefined) throw new ArgumentError(`slice: axis is ${axis}, expected one of ${x.shape.length} axes`);
	if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size)) {
		throw new ArgumentError(`slice: [${start}, ${end}) of axis ${axis}, expected integers within [0, ${size}]`);
	}
	const outer = count(x.shape.slice(0, at));
	const inner = count(x.shape.slice(at + 1));
	const width = (end - start) * inner;
	const y = Tensor.empty(x.shape.with(at, end - start), x.device, x.dtype);
	binding.copyBlock(x.buffer, y.buffer, outer, width, size * inner, start * inner, width, 0);
	record([x], [y], ([g]) => {
		const dx = zeros(x.shape, x.device);
		binding.copyBlock(g!.buffer, dx.buffer, outer, width, width, 0, size * inner, start * inner);
		return [dx];
	});
	return y;
}

/** Tensors joined along one axis; their other sizes must be equal. @param axis negative counts from the last */
export function concat(items: readonly Tensor[], axis: number): Tensor {
	const [first] = items;
	if (!first) throw new ArgumentError('concat: found no tensors, expected at least one');
	check32('concat', first);
	const at = axis < 0 ? axis + first.shape.length : axis;
	if (first.shape[at] === undefined) throw new ArgumentError(`concat: axis is ${axis}, expected one of ${first.shape.length} axes`);
	for (const item of items) {
		if (item.dtype !== first.dtype) throw new ArgumentError(`concat: found ${item.dtype} beside ${first.dtype}, expected one type`);
		if (item.shape.length !== first.shape.length || item.shape.some((size, i) => i !== at && size !== first.shape[i])) {
			throw new ShapeError(`concat: [${item.shape.join(', ')}] does not fit beside [${first.shape.join(', ')}] along axis ${axis}`);
		}
	}
	const outer = count(first.shape.slice(0, at));
	const inner = count(first.shape.slice(at + 1));
	const total = items.reduce((sum, item) => sum + item.shape[at]!, 0);
	const y = Tensor.empty(first.shape.with(at, total), first.device, first.dtype);
	let offset = 0;
	for (const item of items) {
		const width = item.shape[at]! * inner;
		binding.copyBlock(item.buffer, y.buffer, outer, width, width, 0, total * inner, offset);
		offset += width;
	}
	record(items, [y], ([g]) => {
		let start = 0;
		return items.map((item) => {
			const end = start + item.shape[at]!;
			const dx = item.requiresGrad ? slice(g!, at, start, end) : null;
			start = end;
			return dx;
		});
	});
	return y;
}

/** Σ over one axis, which disappears. @param axis negative counts from the last */
export function sum(x: Tensor, axis: number): Tensor {
	dims('sum', { x: [x, '…'] });
	const at = axis < 0 ? axis + x.shape.length : axis;
	const n = x.shape[at];
	if (n === undefined) throw new ArgumentError(`sum: axis is ${axis}, expected one of ${x.shape.length} axes`);
	const outer = count(x.shape.slice(0, at));
	const inner = count(x.shape.slice(at + 1));
	const y = Tensor.empty(x.shape.toSpliced(at, 1), x.device);
	binding.sum(x.buffer, y.buffer, outer, n, inner);
	record([x], [y], ([g]) => {
		const dx = Tensor.empty(x.shape, x.device);
		if (n > 0) binding.copyBlock(g!.buffer, dx.buffer, outer, inner, inner, 0, n * inner, 0);
		for (let done = 1; done < n; done *= 2) {
			const more = Math.min(done, n - done); // the rows written so far, once more: log₂ n calls
			binding.copyBlock(dx.buffer, dx.buffer, outer, more * inner, n * inner, 0, n * inner, done * inner);
		}
		return [dx];
	});
	return y;
}
