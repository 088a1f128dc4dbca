export { isRecording, noGrad } from './autograd.js';
export { type DeviceInfo, type DeviceName, devices, type DType, type MemoryUse, memory, setThreads, synchronize, trim } from './device.js';
export { ArgumentError, DeviceError, DisposedError, FormatError, OutOfMemoryError, ShapeError } from './errors.js';
export * from './layers/index.js';
export * as ops from './ops/index.js';
export { Random } from './random.js';
export { persist, type Resource, scope, Tensor, tensor, type TensorOptions } from './tensor.js';
