import type { Spec } from 'vega';
import { draw, font, frame, looks } from '../plot.js';

export interface HeatMap {
	readonly title: string;
	/** Row by row; rows are drawn from the top. */
	readonly values: readonly (readonly number[])[];
	/** Names of rows and columns. @default their numbers, some of them */
	readonly labels?: readonly string[];
	readonly x?: string;
	readonly y?: string;
	/** Values that the ends of the colour scale stand for; what is beyond has the same colour. */
	readonly range: readonly [number, number];
	/** What the colours are, for the legend. */
	readonly legend: string;
}

export interface HeatMaps {
	readonly title: string;
	readonly subtitle?: string;
	/** Side by side. */
	readonly maps: readonly HeatMap[];
	/** Pixels of a map, some more or less so that its squares have whole ones. @default 420 */
	readonly side?: number;
}

/** Heat maps side by side, each with colours of its own, as the text of an SVG file. */
export function heatMaps(figure: HeatMaps): Promise<string> {
	return draw(specOf(figure));
}

function specOf({ title, subtitle, maps, side = 420 }: HeatMaps): Spec {
	return {
		...frame(title, subtitle),
		config: {
			title: looks.title,
			axis: { ...looks.axis, labelFontSize: 11 },
			legend: { labelFont: font, titleFont: font, titleFontWeight: 500, gradientLength: side / 2, titleLimit: side },
		},
		layout: { columns: maps.length, padding: 30, align: 'all', bounds: 'full' },
		data: maps.map(({ values }, n) => ({
			name: `map${n}`,
			values: values.flatMap((row, y) => row.map((value, x) => ({ x, y, value }))),
		})),
		marks: maps.map((map, n) => groupOf(map, n, side)),
	} as Spec;
}

function groupOf({ title, values, labels, x, y, range, legend }: HeatMap, n: number, about: number) {
	const places = values.map((_, i) => i);
	const side = Math.max(1, Math.round(about / places.length)) * places.length;
	// Of numbers, a tenth are written.
	const every = labels ? 1 : Math.max(1, Math.ceil(places.length / 10));
	const axis = (scale: 'x' | 'y', name: string | undefined) => ({
		scale: `${scale}${n}`,
		orient: scale === 'x' ? 'bottom' : 'left',
		...(name && { title: name }),
		ticks: !labels,
		values: places.filter((place) => place % every === 0),
		labelAngle: 0,
		...(labels && { encode: { labels: { update: { text: { signal: `${JSON.stringify(labels)}[datum.value]` } } } } }),
	});
	return {
		type: 'group',
		title: { text: title, fontSize: 14, anchor: 'middle', offset: 8 },
		encode: { enter: { width: { value: side }, height: { value: side } } },
		scales: [
			{ name: `x${n}`, type: 'band', domain: places, range: [0, side] },
			{ name: `y${n}`, type: 'band', domain: places, range: [0, side] },
			{ name: `colour${n}`, type: 'linear', domain: range, clamp: true, range: { scheme: 'viridis' } },
		],
		axes: [axis('x', x), axis('y', y)],
		legends: [{ fill: `colour${n}`, title: legend, orient: 'bottom', direction: 'horizontal' }],
		marks: [
			{
				type: 'rect',
				from: { data: `map${n}` },
				encode: {
					enter: {
						x: { scale: `x${n}`, field: 'x' },
						y: { scale: `y${n}`, field: 'y' },
						width: { scale: `x${n}`, band: 1 },
						height: { scale: `y${n}`, band: 1 },
						fill: { scale: `colour${n}`, field: 'value' },
					},
				},
			},
		],
	};
}
