/** Which states a bounded cache keeps: one policy a file, and a policy is a score. */
export { full } from './full.js';
export { type H2oOptions, h2o } from './h2o.js';
export { checkPolicy, type Entries, type Policy } from './policy.js';
export { type TovaOptions, tova } from './tova.js';
export { type WindowOptions, window } from './window.js';
