import type { Spec } from 'vega';

export interface Line {
	readonly name: string;
	/** x and y. */
	readonly points: readonly (readonly [number, number])[];
	/** Broken, for what is only there to compare with. @default false */
	readonly dashed?: boolean;
}

export interface Axis {
	/** With the unit. */
	readonly title: string;
	/** Logarithmic: the numbers must be positive. @default false */
	readonly log?: boolean;
	/** Starts at 0. @default true for y, false for x */
	readonly zero?: boolean;
	/** The numbers are milliseconds since 1970. @default false */
	readonly date?: boolean;
}

export interface Chart {
	readonly title: string;
	readonly subtitle?: string;
	readonly x: Axis;
	readonly y: Axis;
	/** Drawn in this order, named in a legend. */
	readonly lines: readonly Line[];
	/** Pixels. @default 720 */
	readonly width?: number;
	/** Pixels. @default 360 */
	readonly height?: number;
}

/** Okabe and Ito's colours, which colour-blind readers tell apart. */
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00'];
export const font = 'system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif';

/** A figure's title, and how titles and axes look. */
export function frame(title: string, subtitle: string | undefined) {
	return {
		$schema: 'https://vega.github.io/schema/vega/v6.json',
		padding: 12,
		background: 'white',
		title: { text: title, ...(subtitle && { subtitle }), anchor: 'start', offset: 14, subtitlePadding: 4 },
	} as const;
}

export const looks = {
	title: { font, fontSize: 17, fontWeight: 600, subtitleFont: font, subtitleFontSize: 13, subtitleColor: '#555' },
	axis: { labelFont: font, titleFont: font, titleFontSize: 13, titleFontWeight: 500, domainColor: '#888', tickColor: '#888' },
} as const;

/** A specification as the text of an SVG file. */
export async function draw(spec: Spec): Promise<string> {
	const vega = await import('vega'); // loaded when needed: it is large, and an ES module
	const view = new vega.View(vega.parse(spec), { renderer: 'none', logLevel: vega.Error });
	try {
		return await view.toSVG();
	} finally {
		view.finalize();
	}
}

/** A line chart as the text of an SVG file. */
export function lineChart(chart: Chart): Promise<string> {
	return draw(specOf(chart));
}

function scaleOf(name: 'x' | 'y', { log = false, date = false, zero = name === 'y' && !log }: Axis) {
	const shared = { name, range: name === 'x' ? 'width' : 'height', domain: { data: 'points', field: name }, nice: name === 'y' } as const;
	if (date) return { ...shared, type: 'utc' as const };
	return log ? { ...shared, type: 'log' as const } : { ...shared, type: 'linear' as const, zero };
}

function axisOf(scale: 'x' | 'y', { title, date = false, log = false }: Axis) {
	const shared = { scale, title, orient: scale === 'x' ? 'bottom' : 'left', grid: true, tickCount: scale === 'x' ? 8 : 6 } as const;
	if (date) return shared;
	// 12k on a logarithmic axis, 12,000 on a linear one.
	return { ...shared, format: log ? '~s' : ',~f', labelOverlap: log };
}

function specOf({ title, subtitle, x, y, lines, width = 720, height = 360 }: Chart): Spec {
	const values = lines.flatMap(({ name, points, dashed = false }) => points.map(([px, py]) => ({ name, x: px, y: py, dashed })));
	const names = lines.map(({ name }) => name);
	const dashes = lines.map(({ dashed }) => (dashed ? [6, 4] : [1, 0]));
	return {
		...frame(title, subtitle),
		width,
		height,
		config: {
			title: looks.title,
			axis: { ...looks.axis, labelFontSize: 12, titlePadding: 10, gridColor: '#e6e6e6' },
			legend: { labelFont: font, labelFontSize: 13, symbolSize: 260, symbolStrokeWidth: 3, labelLimit: 480, columnPadding: 22 },
		},
		data: [{ name: 'points', values }],
		scales: [
			scaleOf('x', x),
			scaleOf('y', y),
			{ name: 'colour', type: 'ordinal', domain: names, range: colours },
			{ name: 'dash', type: 'ordinal', domain: names, range: dashes },
		],
		axes: [axisOf('x', x), axisOf('y', y)],
		legends: [
			{
				stroke: 'colour',
				strokeDash: 'dash',
				symbolType: 'stroke',
				orient: 'bottom',
				direction: 'horizontal',
				columns: Math.min(names.length, 3),
			},
		],
		marks: [
			{
				type: 'group',
				from: { facet: { name: 'line', data: 'points', groupby: 'name' } },
				marks: [
					{
						type: 'line',
						from: { data: 'line' },
						encode: {
							enter: {
								x: { scale: 'x', field: 'x' },
								y: { scale: 'y', field: 'y' },
								stroke: { scale: 'colour', field: 'name' },
								strokeDash: { scale: 'dash', field: 'name' },
								strokeWidth: { value: 2.2 },
								strokeJoin: { value: 'round' },
							},
						},
					},
				],
			},
		],
	} as Spec;
}
