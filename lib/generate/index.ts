export { type ChatGenerateOptions, chat } from './chat.js';
export type { BatchDecoder, Decoder } from './decoder.js';
export { type BatchPiece, type GeneratedText, generate, generateBatch, generateText, type Prompt } from './generate.js';
export type { Generation } from './generation.js';
export { logprob, Sampler, type SamplerOptions } from './sampler.js';
export type { GenerateOptions, Piece, Reason } from './sequence.js';
export { Stop } from './stop.js';
export { toStream } from './stream.js';
