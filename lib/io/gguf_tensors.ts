import { FormatError } from '../errors.js';
import type { GgufHeader, GgufTensor } from './gguf_header.js';
import { blocks, type StoredWeight, type WeightType, weightBytes } from './pretrained.js';

/** ggml's numbers of the types that oplus computes with. */
const types: Readonly<Record<number, WeightType>> = { 0: 'f32', 1: 'f16', 2: 'q4_0', 8: 'q8_0', 12: 'q4_k', 14: 'q6_k', 30: 'bf16' };

/** The names of all of ggml's types, by number from 0: what is refused is refused by name. */
const typeNames =
	'F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS ' +
	'I8 I16 I32 I64 F64 IQ1_M BF16 Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 IQ4_NL_8_8 MXFP4 NVFP4';

/** Where every tensor lies, looked up when it is asked for: one of another type is only refused if the model has it. */
export type GgufTensors = ReadonlyMap<string, () => StoredWeight>;

/** @throws FormatError a tensor that does not lie wholly in the file, or on another */
export function checkedTensors(path: string, { tensors, alignment, size }: GgufHeader): GgufTensors {
	const found = new Map<string, () => StoredWeight>();
	const placed: { name: string; start: number; end: number }[] = [];
	for (const tensor of tensors) {
		const type = Object.hasOwn(types, tensor.type) ? types[tensor.type]! : undefined;
		if (!type) {
			const known = Object.values(types).map((each) => each.toUpperCase());
			const refused = new FormatError(
				path,
				`\`${tensor.name}\` is ${typeNames.split(' ')[tensor.type] ?? `type ${tensor.type}`}, expected one of ${known.join(', ')}`,
			);
			found.set(tensor.name, () => {
				throw refused;
			});
			continue;
		}
		const weight = place(path, tensor, type, alignment, size);
		placed.push({ name: tensor.name, start: weight.offset, end: weight.offset + weight.bytes });
		found.set(tensor.name, () => weight);
	}
	placed.sort((a, b) => a.start - b.start || a.end - b.end);
	for (let i = 1; i < placed.length; i++) {
		const { name, start } = placed[i]!;
		const before = placed[i - 1]!;
		if (start < before.end) throw new FormatError(path, `\`${name}\` starts here, expected behind \`${before.name}\``, { offset: start });
	}
	return found;
}

function place(path: string, { name, shape, offset }: GgufTensor, type: WeightType, alignment: number, size: number): StoredWeight {
	const { numbers } = blocks[type];
	const row = shape.at(-1) ?? 1;
	if (row % numbers !== 0)
		throw new FormatError(path, `\`${name}\` has rows of ${row} numbers, expected a multiple of ${numbers} (${type})`);
	if (offset % alignment !== 0) throw new FormatError(path, `\`${name}\` starts here, expected at a multiple of ${alignment}`, { offset });
	const bytes = weightBytes(type, shape);
	if (!(offset + bytes <= size)) {
		throw new FormatError(path, `\`${name}\` takes ${bytes} bytes from here, expected within the file's ${size} (is it truncated?)`, {
			offset,
		});
	}
	return { type, shape, path, offset, bytes };
}
