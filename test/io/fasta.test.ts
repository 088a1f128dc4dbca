import { existsSync } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import zlib from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { FormatError } from '../../lib/errors.js';
import { type FastaRecord, readFasta, readFastaPieces } from '../../lib/io/fasta.js';
import { Random } from '../../lib/random.js';
import { file, temporary } from '../files.js';

async function all(contents: string | Uint8Array): Promise<FastaRecord[]> {
	const records: FastaRecord[] = [];
	for await (const record of readFasta(await file('x.fasta', contents))) records.push(record);
	return records;
}

async function refused(contents: string | Uint8Array, read: (place: string) => AsyncIterable<unknown> = readFasta): Promise<FormatError> {
	const place = await file('x.fasta', contents);
	const drain = async () => {
		for await (const _ of read(place));
	};
	const error = await drain().then(
		() => undefined,
		(reason: unknown) => reason,
	);
	expect(error).toBeInstanceOf(FormatError);
	expect((error as FormatError).path).toBe(place);
	expect((error as FormatError).message).not.toContain('\n');
	return error as FormatError;
}

describe('readFasta', () => {
	test.each([
		['on one line', '>sp|P1|A_B the first \nMKV\n>two\nACD\n'],
		['wrapped, with empty lines and no final newline', '\n>sp|P1|A_B   the first\nM\nK\nV\n\n>two\nAC\nD'],
		['with CR LF', '>sp|P1|A_B the first\r\nMK\r\nV\r\n>two\r\nACD\r\n\r\n'],
		['in small letters', '>sp|P1|A_B the first\nmkv\n>two\nacD\n'],
		['with * at the end', '>sp|P1|A_B the first\nMKV*\n>two\nACD\n*\n'],
		['with a byte order mark', '\uFEFF>sp|P1|A_B the first\nMKV\n>two\nACD'],
	])('records %s', async (_, contents) => {
		const expected = [
			{ id: 'sp|P1|A_B', description: 'the first', sequence: 'MKV' },
			{ id: 'two', description: '', sequence: 'ACD' },
		];
		expect(await all(contents)).toEqual(expected);
		expect(await all(zlib.gzipSync(contents))).toEqual(expected);
	});

	test('all letters, and headers in UTF-8 and Latin-1', async () => {
		const letters = 'ACDEFGHIKLMNPQRSTVWYXBZUOJ';
		expect(await all(`>a µ°\n${letters}\n`)).toEqual([{ id: 'a', description: 'µ°', sequence: letters }]);
		expect((await all(Buffer.from('>a µ°\nM\n', 'latin1')))[0]!.description).toBe('µ°');
	});

	test('gzip files in several parts, one after the other', async () => {
		const parts = ['>a\nMK', 'V\n>b\nAC\n'].map((part) => zlib.gzipSync(part));
		expect((await all(Buffer.concat(parts))).map(({ sequence }) => sequence)).toEqual(['MKV', 'AC']);
	});

	test('the same records wherever the pieces of the file are cut', async () => {
		// Lines of odd lengths, so that the 64 KB pieces that files are read in end at every kind of place.
		const random = new Random(3);
		const expected = Array.from({ length: 900 }, (_, i) => ({
			id: `r${i}`,
			description: 'd'.repeat(random.integer(40)),
			sequence: Array.from({ length: 1 + random.integer(900) }, () => 'ACDEFGHIKLMNPQRSTVWY'[random.integer(20)]).join(''),
		}));
		const text = expected
			.map(({ id, description, sequence }) => `>${id} ${description}\r\n${sequence.replace(/.{1,61}/g, '$&\r\n')}`)
			.join('');
		expect(text.length).toBeGreaterThan(5 * 2 ** 16);
		expect(await all(text)).toEqual(expected);
		expect(await all(zlib.gzipSync(text))).toEqual(expected);
	});

	test.each([
		['nothing', '', 1, undefined, 'the file is empty'],
		['empty lines alone', '\n\r\n', 1, undefined, 'the file is empty'],
		['no header', 'MKV\n', 1, 1, 'found `M` before the first header'],
		['no name', '>a\nMK\n> b\nMK\n', 3, 2, 'record 2 has no name'],
		['no residues', '>a\nMK\n>b\n\n>c\nM\n', 3, undefined, 'record 2 (b) has no residues'],
		['no residues at the end', '>a\nMK\n>b', 3, undefined, 'record 2 (b) has no residues'],
		['a * alone', '>a\n*\n', 2, 1, 'record 1 (a): found `*`, expected a residue'],
		['a digit', '>a\nMK\nVV1V\n', 3, 3, 'record 1 (a): found `1`, expected a residue'],
		['a gap', '>a\nMK-V\n', 2, 3, 'found `-`'],
		['a space', '>a\nMK V\n', 2, 3, 'found byte 0x20'],
		['a NUL', '>a\nMK\n>b\nM\0\n', 4, 2, 'record 2 (b): found byte 0x00'],
		['a NUL in a header', '>a\nMK\n>b x\0y\nM\n', 3, 5, 'found byte 0x00 in the header of record 2'],
		['a > inside a line', '>a\nMK>b\nV\n', 2, 3, 'found `>`'],
		['a * inside', '>a\nM*\nK\n', 2, 2, 'record 1 (a): found `*` inside the sequence'],
		['a CR inside', '>a\nMK\rV\n', 2, 3, 'found byte 0x0d'],
		['a CR at the end', '>a\nMK\r', 2, 3, 'found byte 0x0d'],
		['letters that are not ASCII', '>a\nMÉ\n', 2, 2, 'found byte 0xc3'],
	])('%s: record, line and column, and what was expected', async (_, contents, line, column, message) => {
		const error = await refused(contents);
		expect([error.line, error.column]).toEqual([line, column]);
		expect(error.message).toContain(message);
		expect(error.message).toContain(', expected ');
	});

	test('gzip data that ends early: after which record, and at which byte', async () => {
		const whole = zlib.gzipSync(`>a\n${'MKVL'.repeat(40_000)}\n>b\nMK\n`, { level: 0 });
		const cut = whole.subarray(0, whole.length - 9);
		const error = await refused(cut);
		expect(error.message).toMatch(/the gzip data ends early, after (record [12] \([ab]\) began|the start), expected all of it/);
		expect(error.offset).toBe(cut.length);
	});

	test('gzip data that is damaged', async () => {
		const whole = zlib.gzipSync(`>a\n${'MKVL'.repeat(1000)}\n`);
		whole[whole.length - 6]! ^= 1; // of the checksum
		expect((await refused(whole)).message).toContain('the gzip data is damaged');
		expect((await refused(Buffer.from([0x1f, 0x8b, 9, 9]))).message).toContain('the gzip data is damaged');
	});

	test('files that are no files', async () => {
		await expect(all(Buffer.alloc(0))).rejects.toThrow(FormatError);
		const drain = async (place: string) => {
			for await (const _ of readFasta(place));
		};
		await expect(drain('nowhere.fasta')).rejects.toThrow('nowhere.fasta: this cannot be opened (ENOENT), expected a file');
		await expect(drain(await temporary())).rejects.toThrow('expected a file');
	});

	test('a header line or a sequence that is too long is refused, also where a small file unpacks to it', async () => {
		expect((await refused(zlib.gzipSync(`>${'x'.repeat(2 ** 16 + 1)}\nM\n`))).message).toContain(
			'the header of record 1 is longer than 65536',
		);
		expect((await all(`>${'x'.repeat(2 ** 16)}\nM\n`))[0]!.id).toHaveLength(2 ** 16);
		const long = zlib.gzipSync(Buffer.concat([Buffer.from('>a\nM\n>b\n'), Buffer.alloc(2 ** 24 + 1, 'M')]));
		expect(long.length).toBeLessThan(50_000);
		expect((await refused(long)).message).toContain('record 2 (b): found more than 16777216 residues');
	});

	test("stops with the signal's own reason", async () => {
		const place = await file('x.fasta', '>a\nMK\n'.repeat(50_000));
		const reason = new Error('enough');
		const controller = new AbortController();
		let records = 0;
		const reading = (async () => {
			for await (const _ of readFasta(place, { signal: controller.signal })) if (++records === 50) controller.abort(reason);
		})();
		await expect(reading).rejects.toBe(reason);
		expect(records).toBeLessThan(50_000);
	});

	test('spoilt files: an error that is ours, or records made of residues', async () => {
		const random = new Random(11);
		const whole = Buffer.from('>a one\nMKVL\nAC*\n>b two\r\nMKDE\r\nWY\r\n>c\nm');
		for (let round = 0; round < 300; round++) {
			const bytes = Buffer.from(whole);
			for (let n = 1 + random.integer(3); n > 0; n--) bytes[random.integer(bytes.length)] = random.integer(256);
			const contents = bytes.subarray(0, 1 + random.integer(bytes.length));
			const found = await all(random.integer(2) ? contents : zlib.gzipSync(contents).subarray(0, 12 + random.integer(60))).catch(
				(error: unknown) => error,
			);
			if (found instanceof Error) expect(found).toBeInstanceOf(FormatError);
			else
				for (const { id, sequence } of found as FastaRecord[])
					expect([id.length > 0, sequence]).toEqual([true, expect.stringMatching(/^[A-Z]+$/)]);
		}
	});
});

test('pieces: a sequence of any length in constant memory', async () => {
	const megabytes = 100;
	const packed = zlib.gzipSync(`${'MKVLACDEFGHIKLMN'.repeat(2 ** 16)}\n`); // one megabyte
	const place = path.join(await temporary(), 'long.fasta.gz');
	await fs.writeFile(place, zlib.gzipSync('>long\n'));
	for (let i = 0; i < megabytes; i++) await fs.appendFile(place, packed);
	let residues = 0;
	let most = 0;
	for await (const piece of readFastaPieces(place)) {
		if (piece.type !== 'residues') continue;
		residues += piece.residues.length;
		most = Math.max(most, piece.residues.length);
	}
	expect(residues).toBe(megabytes * 2 ** 20);
	expect(most).toBeLessThanOrEqual(2 ** 16);
});

// The published file where it is (OPLUS_DATA or ../shared/data); one made alike where it is not.
const published = path.join(
	process.env.OPLUS_DATA ?? path.join(__dirname, '..', '..', '..', 'shared', 'data'),
	'protein',
	'uniprot20k.fasta.gz',
);
const there = existsSync(published);
if (!there) console.warn(`test/io/fasta: ${published} is not there; a file made for the test takes its place`);

test('a file as published', async () => {
	const place = there
		? published
		: await file('made.fasta.gz', zlib.gzipSync(`>tr|W0FSK4|W0FSK4_9FLAV Genome polyprotein\n${'M'.repeat(8081)}\n`));
	let [records, residues, longest, first] = [0, 0, 0, ''];
	for await (const { id, sequence } of readFasta(place)) {
		if (records++ === 0) first = id;
		residues += sequence.length;
		longest = Math.max(longest, sequence.length);
	}
	expect(first).toBe('tr|W0FSK4|W0FSK4_9FLAV');
	expect([records, residues, longest]).toEqual(there ? [20_000, 9_055_569, 8081] : [1, 8081, 8081]);
});
