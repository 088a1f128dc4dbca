/** Operations on tensors, as `ops`. All take and give tensors of one device, and are differentiable where it makes sense. */
export { type AttendOptions, attend } from './attend.js';
export { cast } from './cast.js';
export { type DropoutOptions, dropout } from './dropout.js';
export { add, concat, mul, reshape, scale, slice, sum } from './elementwise.js';
export { foldQuery } from './fold_query.js';
export { gelu } from './gelu.js';
export { join } from './join.js';
export { type LayerNormOptions, layerNorm } from './layer_norm.js';
export { lengths } from './lengths.js';
export { linear } from './linear.js';
export { meanSquaredError } from './loss.js';
export { type MatmulOptions, matmul } from './matmul.js';
export { type AdamwStep, adamw, sumSquares } from './optimizer.js';
export { type ScanOptions, type ScanState, scan } from './scan.js';
export { zeros } from './zeros.js';
