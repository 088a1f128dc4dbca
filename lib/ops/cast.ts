import { record } from '../autograd.js';
import { binding } from '../binding.js';
import type { DType } from '../device.js';
import { ArgumentError } from '../errors.js';
import { Tensor } from '../tensor.js';
import { reshape } from './elementwise.js';

/** How native code names the 16-bit types. */
const kinds = { f16: 0, bf16: 1 } as const;

/**
 * The same numbers stored otherwise: between f32 and f16 (IEEE half) or bf16, rounded to nearest even; NaN stays NaN. The
 * gradient passes through unchanged, in f32.
 * @param x any shape, f32, f16 or bf16
 */
export function cast(x: Tensor, dtype: 'f32' | 'f16' | 'bf16'): Tensor {
	if (x.dtype === dtype) return reshape(x, x.shape);
	const from = x.dtype;
	if (!isFloat(from) || !isFloat(dtype)) throw new ArgumentError(`cast: from ${from} to ${dtype}, expected f32, f16 or bf16`);
	if (from !== 'f32' && dtype !== 'f32') {
		const wide = cast(x, 'f32');
		const y = cast(wide, dtype);
		if (!wide.requiresGrad) wide.dispose();
		return y;
	}
	const y = Tensor.empty(x.shape, x.device, dtype);
	if (dtype !== 'f32') binding.narrow(x.buffer, y.buffer, kinds[dtype], x.size);
	else if (from !== 'f32') binding.widen(x.buffer, y.buffer, kinds[from], x.size);
	record([x], [y], ([g]) => [g]);
	return y;
}

function isFloat(dtype: DType): dtype is 'f32' | 'f16' | 'bf16' {
	return dtype === 'f32' || dtype === 'f16' || dtype === 'bf16';
}
