export { Aaren, type AarenOptions } from './aaren.js';
export { Block, type BlockOptions, type MixerName, Stack } from './block.js';
export { CausalAttention } from './causal_attention.js';
export { CrossAttention, type CrossAttentionOptions } from './cross_attention.js';
export { LayerNorm, type LayerNormOptions } from './layer_norm.js';
export { type LayerOptions, Linear, type LinearOptions } from './linear.js';
export { type ForwardOptions, Mixer, type MixerOptions, type Recurrent } from './mixer.js';
export { Module } from './module.js';
export { State } from './state.js';
