/** binding.d.ts, read: what the addon should export. */
import fs from 'node:fs';
import path from 'node:path';

export const root = path.dirname(__dirname);

const text = fs
	.readFileSync(path.join(root, 'binding.d.ts'), 'utf8')
	.replace(/\/\*[\s\S]*?\*\//g, '')
	.replace(/\/\/.*/g, '');

/** Members of an interface: name and parameters, `name: type` each. */
function members(name: string): Map<string, string[]> {
	const body = new RegExp(`interface ${name} \\{([\\s\\S]*?)\\n\\}`).exec(text)![1]!;
	const found = new Map<string, string[]>();
	for (const [, member, parameters] of body.matchAll(/^\t(\w+)\(([\s\S]*?)\): [^\n]*;$/gm)) {
		found.set(
			member!,
			parameters!
				.split(/,\s*(?=\w+:)/)
				.map((each) => each.trim())
				.filter(Boolean),
		);
	}
	return found;
}

/** How the addon's signatures spell the types of binding.d.ts. */
const words: Readonly<Record<string, string>> = {
	In: 'in f32',
	InInt: 'in i32',
	InHalf: 'in u16',
	InBytes: 'in u8',
	OutBytes: 'out u8',
	MaybeIn: 'in? f32',
	MaybeInInt: 'in? i32',
	Out: 'out f32',
	OutHalf: 'out u16',
	OutInt: 'out i32',
	InOut: 'inout f32',
	InOutInt: 'inout i32',
	InOutBytes: 'inout u8',
	MaybeInOutInt: 'inout? i32',
	MaybeOut: 'out? f32',
	int: 'int',
	float: 'float',
	boolean: 'bool',
};

export interface Parameter {
	readonly name: string;
	readonly words: string;
}

export const operations = new Map(
	[...members('Operations')].map(([name, parameters]): [string, Parameter[]] => [
		name,
		parameters.map((parameter) => {
			const [label, type] = parameter.replace(/,\s*$/, '').split(/:\s*/) as [string, string];
			return { name: label, words: words[type] ?? `binding.d.ts says ${type}` };
		}),
	]),
);

export const runtime = members('Runtime');
