import type { DType } from '../device.js';

/** How native code numbers the ways in which weights are stored (native/ops/stored.h). */
export const storedKinds: Readonly<Partial<Record<DType, number>>> = { f32: 0, f16: 1, bf16: 2, q8_0: 3, q4_0: 4, q4_k: 5, q6_k: 6 };
