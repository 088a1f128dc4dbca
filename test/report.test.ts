import { expect, test } from 'vitest';
import { lineChart } from '../lib/plot.js';
import { htmlReport } from '../lib/report.js';

test('a chart says what it shows: title, axes, legend, a line for each series', async () => {
	const svg = await lineChart({
		title: 'Growth & <size>',
		x: { title: 'tokens', log: true },
		y: { title: 'bytes', log: true },
		lines: [
			{
				name: 'flat',
				points: [
					[1, 10],
					[10, 10],
					[100, 10],
				],
			},
			{
				name: 'steep',
				points: [
					[1, 10],
					[10, 100],
					[100, 1000],
				],
				dashed: true,
			},
		],
	});
	expect(svg).toMatch(/^<svg /);
	for (const text of ['Growth &amp; &lt;size&gt;', 'tokens', 'bytes', 'flat', 'steep']) expect(svg).toContain(text);
	const lines = [...svg.matchAll(/aria-roledescription="line mark container"[^>]*><path[^>]*d="([^"]*)"/g)].map(([, d]) => d!);
	expect(lines).toHaveLength(2);
	expect(lines.map((d) => d.split(/[ML]/).length - 1)).toEqual([3, 3]);
	expect(svg).toContain('stroke-dasharray="6,4"');
});

test('a report escapes its texts', () => {
	const page = htmlReport({
		title: '<b>',
		lead: 'a & b',
		sections: [{ heading: '"q"', text: ["it's"], table: { head: ['<i>'], rows: [['<u>']] }, charts: ['<svg></svg>'] }],
	});
	expect(page).toContain('<title>&lt;b&gt;</title>');
	expect(page).toContain('a &amp; b');
	expect(page).toContain('&quot;q&quot;');
	expect(page).toContain('<td>&lt;u&gt;</td>');
	expect(page).toContain('<figure><svg></svg></figure>');
});

test('a column of numbers stands to the right, one with words in it to the left', () => {
	const rows = [
		['copy of 3', '6.25 ms', '0.517', '90 % of a copy'],
		['12', '−3.4 µs', '–', '1 %'],
	];
	const page = htmlReport({
		title: 't',
		lead: '',
		sections: [{ heading: 'h', table: { head: ['work', 'time', 'error', 'share'], rows } }],
	});
	const cells = [...page.matchAll(/<t([hd])( class="number")?>([^<]*)</g)].map(([, , number, text]) => [text, number !== undefined]);
	const numeric = [false, true, true, false];
	expect(cells).toEqual([['work', 'time', 'error', 'share'], ...rows].flatMap((row) => row.map((text, i) => [text, numeric[i]])));
});
