import type { Buffer } from '../binding.js';
import type { Node } from './autograd.js';
import { binding } from './binding.js';
import { bytesFor, type DeviceName, type DType } from './device.js';
import { count } from './dims.js';
import { ArgumentError, DisposedError, ShapeError } from './errors.js';

/** Anything that holds memory outside the JavaScript heap. Disposing twice is fine; using it afterwards throws `DisposedError`. */
export interface Resource extends Disposable {
	/** Bytes held on the device. */
	readonly bytes: number;
	readonly disposed: boolean;
	dispose(): void;
}

export interface TensorOptions {
	/** @default 'cpu' */
	readonly device?: DeviceName;
	/** @default 'f32' */
	readonly dtype?: DType;
}

/** Memory on a device, shared by the tensors that look at it in different shapes. */
interface Memory {
	buffer: Buffer | undefined;
	users: number;
}

/** One tensor's share in a memory; empty once it is given back. */
interface Share {
	memory: Memory | undefined;
}

/**
 * Frees what was dropped without `dispose()`. It watches tensors and is given their `Share`, never the tensor itself: a
 * registry that held what it watches would never call back.
 */
const dropped = new FinalizationRegistry<Share>(release);

function release(share: Share): void {
	const { memory } = share;
	share.memory = undefined;
	if (memory?.buffer === undefined || --memory.users > 0) return;
	binding.dispose(memory.buffer);
	memory.buffer = undefined;
}

/** Numbers on a device, with a shape: row-major, last dimension contiguous. */
export class Tensor implements Resource {
	readonly shape: readonly number[];
	readonly dtype: DType;
	readonly device: DeviceName;
	/** Whether `backward()` should bring a gradient here. Set on parameters; results inherit it. */
	requiresGrad = false;
	/** The gradient that `backward()` brought, of the same shape; null before, and on intermediate results. */
	grad: Tensor | null = null;
	/** How often the numbers were changed in place: what is derived from them knows when it is stale. */
	version = 0;
	/** How this tensor came to be, while the tape needs it. */
	node: Node | null = null;
	/** Outlives the scope that it was made in: see `persist`. */
	persistent = false;
	readonly #share: Share;

	/** Use `tensor()`, or `Tensor.empty` for memory that will be written whole. */
	private constructor(shape: readonly number[], dtype: DType, device: DeviceName, memory: Memory) {
		this.shape = shape;
		this.dtype = dtype;
		this.device = device;
		memory.users++;
		this.#share = { memory };
		if (current) current.push(this);
		else this.#watch();
	}

	/**
	 * Free the memory when the tensor is dropped. What a scope holds on to is watched when it leaves the scope, if it does: most
	 * tensors live and die inside one, and a watched object costs the collector several times its own allocation.
	 */
	#watch(): void {
		dropped.register(this, this.#share);
	}

	/** For `scope`, which ends: on to the scope around it, or out of all of them, or freed. */
	static leave(item: Tensor, outer: Tensor[] | undefined, kept: boolean): void {
		if (!item.persistent && !kept) item.dispose();
		else if (outer && !item.persistent) outer.push(item);
		else item.#watch();
	}

	/** Memory with nothing in it yet. */
	static empty(shape: readonly number[], device: DeviceName = 'cpu', dtype: DType = 'f32', data: ArrayBufferView | null = null): Tensor {
		const buffer = binding.create(device, bytesFor(dtype, count(shape)), data);
		return new Tensor(shape, dtype, device, { buffer, users: 0 });
	}

	/**
	 * Numbers that lie in a file, from byte `offset` on: on the CPU its own pages, read when they are used and never written; a copy on
	 * other devices, and where numbers do not begin at a multiple of their size. The file must stay as it is while the tensor is in use.
	 */
	static map(shape: readonly number[], device: DeviceName, dtype: DType, path: string, offset: number): Tensor {
		const buffer = binding.map(device, path, offset, bytesFor(dtype, count(shape)), dtype === 'f32' || dtype === 'i32' ? 4 : 2);
		return new Tensor(shape, dtype, device, { buffer, users: 0 });
	}

	/** The native handle. */
	get buffer(): Buffer {
		const buffer = this.#share.memory?.buffer;
		if (buffer === undefined) throw new DisposedError(`tensor [${this.shape.join(', ')}] has been disposed of`);
		return buffer;
	}

	/** Number of elements. */
	get size(): number {
		return count(this.shape);
	}

	get bytes(): number {
		return this.disposed ? 0 : bytesFor(this.dtype, this.size);
	}

	get disposed(): boolean {
		return this.#share.memory === undefined;
	}

	/** The same memory in another shape of the same size. Not on the tape: `ops.reshape` is. */
	view(shape: readonly number[]): Tensor {
		if (count(shape) !== this.size) {
			throw new ShapeError(
				`view: [${shape.join(', ')}] has ${count(shape)} elements, expected ${this.size} as in [${this.shape.join(', ')}]`,
			);
		}
		const { memory } = this.#share;
		if (!memory) throw new DisposedError(`tensor [${this.shape.join(', ')}] has been disposed of`);
		return new Tensor(shape, this.dtype, this.device, memory);
	}

	/**
	 * The numbers, after everything queued on them has run. f16 and bf16 come back as their bits (Uint16Array), blocks as bytes.
	 * @throws the error of the queued operation that should have written them
	 */
	async read(): Promise<Float32Array> {
		const bytes = binding.read(this.buffer);
		const ready = bytes instanceof ArrayBuffer ? bytes : await bytes;
		if (this.dtype === 'i32') return new Int32Array(ready) as unknown as Float32Array;
		if (this.dtype === 'f16' || this.dtype === 'bf16') return new Uint16Array(ready) as unknown as Float32Array;
		if (this.dtype !== 'f32') return new Uint8Array(ready) as unknown as Float32Array;
		return new Float32Array(ready);
	}

	/** Overwrite the numbers, bit by bit. Queued like an operation, so work queued before still sees the old ones. */
	write(data: ArrayBufferView): void {
		const { buffer } = this;
		if (data.byteLength !== this.bytes) {
			const found = (data.byteLength * this.size) / this.bytes;
			throw new ShapeError(`write: data holds ${Number.isFinite(found) ? found : data.byteLength} elements, expected ${this.size}`);
		}
		binding.write(buffer, data);
		this.version++;
	}

	/** Bring gradients of this scalar to every tensor that it was made from and that asks for one (`requiresGrad`). */
	backward(): void {
		if (!backward) throw new Error('backward: autograd is not loaded');
		backward(this);
	}

	dispose(): void {
		this.node = null;
		release(this.#share);
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}

let backward: ((loss: Tensor) => void) | undefined;

/** Given by lib/autograd.ts, which knows tensors: the other way round would be a circle. */
export function setBackward(run: (loss: Tensor) => void): void {
	backward = run;
}

/**
 * A tensor of numbers.
 * @param data row-major; copied before the call returns
 * @param shape its product is `data.length`
 */
export function tensor(data: Float32Array | readonly number[], shape: readonly number[], options: TensorOptions = {}): Tensor {
	const { device = 'cpu', dtype = 'f32' } = options;
	for (const size of shape) {
		if (!Number.isInteger(size) || size < 0)
			throw new ShapeError(`tensor: shape [${shape.join(', ')}] holds ${size}, expected integers from 0`);
	}
	if (data.length !== count(shape)) {
		throw new ShapeError(`tensor: data holds ${data.length} elements, expected ${count(shape)} for shape [${shape.join(', ')}]`);
	}
	if (dtype === 'i32') return Tensor.empty([...shape], device, dtype, Int32Array.from(data));
	if (dtype !== 'f32') throw new ArgumentError(`tensor: dtype is ${dtype}, expected f32 or i32 (ops.cast makes f16 and bf16)`);
	return Tensor.empty([...shape], device, dtype, data instanceof Float32Array ? data : Float32Array.from(data));
}

// ---- scopes --------------------------------------------------------------------------------------

let current: Tensor[] | undefined;

/** Everything that `scope` may return: tensors anywhere inside arrays, maps and plain objects are kept. */
function keep(value: unknown, kept: Set<Tensor>): void {
	if (value instanceof Tensor) {
		kept.add(value);
		if (value.grad) kept.add(value.grad);
	} else if (Array.isArray(value)) {
		for (const item of value) keep(item, kept);
	} else if (value instanceof Map) {
		for (const item of value.values()) keep(item, kept);
	} else if (value !== null && typeof value === 'object') {
		const owned = (value as { tensors?: () => Iterable<Tensor> }).tensors;
		if (typeof owned === 'function') for (const item of owned.call(value)) keep(item, kept);
		else if (Object.getPrototypeOf(value) === Object.prototype) for (const item of Object.values(value)) keep(item, kept);
	}
}

/**
 * Run `fn` and free every tensor made inside, except what it returns (tensors in arrays, maps, plain objects and states).
 * Scopes nest: what an inner scope keeps belongs to the outer one. `fn` must not be async.
 */
export function scope<R>(fn: () => R): R {
	const outer = current;
	const made: Tensor[] = [];
	current = made;
	let kept: Set<Tensor> | undefined;
	let only: Tensor | undefined;
	try {
		const result = fn();
		if (result instanceof Promise)
			throw new ArgumentError('scope: the function returned a promise, expected one that is done when it returns');
		if (result instanceof Tensor && !result.grad) only = result;
		else keep(result, (kept = new Set()));
		return result;
	} finally {
		current = outer;
		for (const item of made) Tensor.leave(item, outer, item === only || kept?.has(item) === true);
	}
}

/** Take a tensor out of every scope: for what outlives the call that made it, as parameters, their gradients, and states. */
export function persist(item: Tensor): Tensor {
	item.persistent = true;
	return item;
}
