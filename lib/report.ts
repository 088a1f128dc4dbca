export interface Section {
	readonly heading: string;
	/** Paragraphs of plain text. */
	readonly text?: readonly string[];
	/** Charts: the text of SVG files that this program made. */
	readonly charts?: readonly string[];
	readonly table?: { readonly head: readonly string[]; readonly rows: readonly (readonly string[])[] };
}

export interface Report {
	readonly title: string;
	readonly lead: string;
	readonly sections: readonly Section[];
}

const style = `
body { font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; color: #222; max-width: 64rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin-bottom: .4rem; }
h2 { font-size: 1.3rem; margin-top: 2.6rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }
.lead { font-size: 1.1rem; color: #444; }
figure { margin: 1.4rem 0; }
figure svg { width: 100%; height: auto; border: 1px solid #eee; border-radius: 6px; }
table { border-collapse: collapse; margin: 1.2rem 0; font-size: .95rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: left; vertical-align: top; }
.number { text-align: right; white-space: nowrap; }
`;

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Text that is safe inside HTML. */
export function safe(text: string): string {
	return text.replace(/[&<>"']/g, (character) => escapes[character]!);
}

function sectionOf({ heading, text = [], charts = [], table }: Section): string {
	// A column of numbers, with units or without, stands to the right with its head; – is where there is none.
	const numeric = table?.head.map((_, i) => table.rows.every((cells) => /^(–|[-−]?\d[\d.,]* ?\S{0,8})?$/.test(cells[i] ?? '')));
	const row = (cells: readonly string[], tag: 'th' | 'td') =>
		`<tr>${cells.map((cell, i) => `<${tag}${numeric?.[i] ? ' class="number"' : ''}>${safe(cell)}</${tag}>`).join('')}</tr>`;
	return [
		`<h2>${safe(heading)}</h2>`,
		...text.map((paragraph) => `<p>${safe(paragraph)}</p>`),
		...(table ? ['<table>', row(table.head, 'th'), ...table.rows.map((cells) => row(cells, 'td')), '</table>'] : []),
		...charts.map((svg) => `<figure>${svg}</figure>`),
	].join('\n');
}

/** A page that is one file: styles and charts are inside, nothing is fetched. */
export function htmlReport({ title, lead, sections }: Report): string {
	return [
		'<!doctype html>',
		'<html lang="en">',
		'<head>',
		'<meta charset="utf-8">',
		'<meta name="viewport" content="width=device-width, initial-scale=1">',
		`<title>${safe(title)}</title>`,
		`<style>${style}</style>`,
		'</head>',
		'<body>',
		`<h1>${safe(title)}</h1>`,
		`<p class="lead">${safe(lead)}</p>`,
		...sections.map(sectionOf),
		'</body>',
		'</html>',
		'',
	].join('\n');
}
