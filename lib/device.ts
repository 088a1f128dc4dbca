import type { MemoryUse } from '../binding.js';
import { binding } from './binding.js';
import { ArgumentError } from './errors.js';
import { blocks, type WeightType } from './io/pretrained.js';

/** `'cuda'` is `'cuda:0'`. */
export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}`;

/** How numbers are stored: floats, whole numbers, or blocks of quantised weights. Arithmetic and sums are always f32. */
export type DType = WeightType | 'i32';

/** Bytes that `count` numbers take; blocks lie along the last dimension, whose size is a multiple of a block's. */
export function bytesFor(dtype: DType, count: number): number {
	if (dtype === 'i32') return 4 * count;
	const { numbers, bytes } = blocks[dtype];
	return (count / numbers) * bytes;
}

export interface DeviceInfo {
	readonly name: DeviceName;
	/** The processor's own name. */
	readonly model: string;
	/** Bytes of memory in all; 0 when unknown. */
	readonly memory: number;
	/** CPU: the instruction set that operations use (`base`, `avx2`, `avx512`). CUDA: the compute capability, as `9.0`. */
	readonly architecture: string;
	/** CPU: threads that operations use. */
	readonly threads?: number;
}

/** What oplus can run on, the CPU first. `absent` names each kind of device that is not there and says why. */
export function devices(): DeviceInfo[] & { readonly absent: readonly { name: string; reason: string }[] } {
	const found = binding.devices();
	const { target, threads } = binding.cpu();
	const list = found.devices.map(({ name, model, memory, capability }): DeviceInfo => {
		if (name === 'cpu') return { name, model, memory, architecture: target, threads };
		return { name: name as DeviceName, model, memory, architecture: (capability / 10).toFixed(1) };
	});
	return Object.assign(list, { absent: found.absent });
}

/** What a device holds for this thread's tensors now. @param device default `'cpu'` */
export function memory(device: DeviceName = 'cpu'): MemoryUse {
	return binding.memory(device);
}

/** Give memory that is kept for reuse back to the system. @param device default `'cpu'` */
export function trim(device: DeviceName = 'cpu'): void {
	binding.trim(device);
}

/** Wait until everything queued on the device has run. @param device default `'cpu'` */
export function synchronize(device: DeviceName = 'cpu'): Promise<void> {
	return binding.synchronize(device);
}

/** Threads that CPU operations of the whole process use, the calling one included. 0 (the default): all it may use. */
export function setThreads(threads: number): void {
	if (!Number.isInteger(threads) || threads < 0) {
		throw new ArgumentError(`setThreads: threads is ${threads}, expected an integer from 0`);
	}
	binding.setThreads(threads);
}

export type { MemoryUse };
