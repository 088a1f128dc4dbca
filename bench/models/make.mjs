// Decoders with random weights, as GGUF files that other programs load too: what figures of decoding are taken on.
//
//   node bench/models/make.mjs SHAPE TYPE …     SHAPE: tiny, 110m or 1.1b; TYPE: f32, f16, q8_0 or q4_0
//
// Files go to OPLUS_BENCH_MODELS, or a folder of their own among the system's temporary ones, and are made once. The same
// shape and type give the same bytes everywhere.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeGguf } from './gguf.mjs';
import { matricesOf, shapes, types } from './shapes.mjs';

export const folder = process.env.OPLUS_BENCH_MODELS ?? path.join(os.tmpdir(), 'oplus-bench-models');

/** Part of the names: to be raised when the bytes change. */
const EDITION = 1;

/** @returns {string} the file of a model, which is written if it is not there */
export function modelFile(shape, type) {
	if (!Object.hasOwn(shapes, shape)) throw new Error(`there is no shape ${shape}, expected one of ${Object.keys(shapes).join(', ')}`);
	if (!Object.hasOwn(types, type)) throw new Error(`there is no type ${type}, expected one of ${Object.keys(types).join(', ')}`);
	const file = path.join(folder, `${shape}-${type}-${EDITION}.gguf`);
	if (fs.existsSync(file)) return file;
	fs.mkdirSync(folder, { recursive: true });
	const { layers, dim, vocabulary, tied } = shapes[shape];
	const random = generator(1);
	const pool = poolOf(type, random);
	const matrix = (size) => ({ type, shape: size, rows: rowsFrom(pool, type, size[1], random) });
	const norm = { type: 'f32', shape: [dim], rows: () => new Uint8Array(new Float32Array(dim).fill(1).buffer) };
	const tensors = new Map([['token_embd.weight', matrix([vocabulary, dim])]]);
	for (let i = 0; i < layers; i++) {
		for (const part of ['attn_norm', 'ffn_norm']) tensors.set(`blk.${i}.${part}.weight`, norm);
		for (const [part, size] of Object.entries(matricesOf(shapes[shape]))) tensors.set(`blk.${i}.${part}.weight`, matrix(size));
	}
	tensors.set('output_norm.weight', norm);
	if (!tied) tensors.set('output.weight', matrix([vocabulary, dim]));
	writeGguf(file, metadataOf(shape, shapes[shape]), tensors);
	return file;
}

function metadataOf(name, { layers, context, dim, hidden, heads, kvHeads, epsilon, theta, vocabulary }) {
	return {
		'general.architecture': 'llama',
		'general.name': `random ${name}`,
		'llama.block_count': { u32: layers },
		'llama.context_length': { u32: context },
		'llama.embedding_length': { u32: dim },
		'llama.feed_forward_length': { u32: hidden },
		'llama.attention.head_count': { u32: heads },
		'llama.attention.head_count_kv': { u32: kvHeads },
		'llama.attention.layer_norm_rms_epsilon': { f32: epsilon },
		'llama.rope.freq_base': { f32: theta },
		'llama.rope.dimension_count': { u32: dim / heads },
		'llama.vocab_size': { u32: vocabulary },
		...tokenizerOf(vocabulary),
	};
}

/** A vocabulary of SentencePiece's kind: unknown, begin, end, the bytes, and made-up pieces, of which the first are the better. */
function tokenizerOf(vocabulary) {
	const pieces = ['<unk>', '<s>', '</s>'];
	const kinds = [2, 3, 3];
	for (let byte = 0; byte < 256; byte++) {
		pieces.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
		kinds.push(6);
	}
	const letters = [...'▁etaoinshrdlucmfwypvbgkjqxz'];
	for (let i = 0; pieces.length < vocabulary; i++) {
		pieces.push(spelled(i, letters));
		kinds.push(1);
	}
	return {
		'tokenizer.ggml.model': 'llama',
		'tokenizer.ggml.tokens': pieces,
		'tokenizer.ggml.scores': Float32Array.from(pieces, (_, i) => (i < 259 ? 0 : 258 - i)),
		'tokenizer.ggml.token_type': Int32Array.from(kinds),
		'tokenizer.ggml.bos_token_id': { u32: 1 },
		'tokenizer.ggml.eos_token_id': { u32: 2 },
		'tokenizer.ggml.unknown_token_id': { u32: 0 },
		'tokenizer.ggml.add_bos_token': true,
	};
}

/** Text number i: one letter, then two, then three, … */
function spelled(i, letters) {
	let text = '';
	for (let rest = i; rest >= 0; rest = Math.floor(rest / letters.length) - 1) text = letters[rest % letters.length] + text;
	return text;
}

/** Whole numbers of 32 bits (xorshift). */
function generator(seed) {
	let state = seed;
	return () => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		return state >>> 0;
	};
}

/** Blocks that weights are cut from: drawing a thousand million numbers one by one would take minutes. */
const POOL = 2 ** 20;

/** Random numbers of size about 0.02, as a file stores them. */
function poolOf(type, random) {
	const { numbers, bytes } = types[type];
	const view = new DataView(new ArrayBuffer((POOL / numbers) * bytes));
	for (let at = 0; at < view.byteLength; at += bytes) {
		const draw = random();
		// Halves whose exponents are chosen and whose fractions are random.
		if (type === 'f32') view.setFloat32(at, (draw / 2 ** 32 - 0.5) * 0.07, true);
		else if (type === 'f16') view.setUint16(at, (draw & 0x8000) | (9 << 10) | (draw & 0x3ff), true);
		else view.setUint16(at, ((type === 'q8_0' ? 3 : 7) << 10) | (draw & 0x3ff), true);
		for (let i = 2; numbers > 1 && i < bytes; i++) view.setUint8(at + i, random() >>> 24);
	}
	return new Uint8Array(view.buffer);
}

/** Every row begins at another block of the pool. */
function rowsFrom(pool, type, columns, random) {
	const { numbers, bytes } = types[type];
	const rowBytes = (columns / numbers) * bytes;
	const places = Math.floor((pool.length - rowBytes) / bytes) + 1;
	return (first, end) => {
		const rows = new Uint8Array((end - first) * rowBytes);
		for (let row = 0; row < end - first; row++) {
			const from = (random() % places) * bytes;
			rows.set(pool.subarray(from, from + rowBytes), row * rowBytes);
		}
		return rows;
	};
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
	const [shape, ...wanted] = process.argv.slice(2);
	for (const type of wanted) console.log(modelFile(shape, type));
}
