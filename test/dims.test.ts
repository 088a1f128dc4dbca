import { expect, test } from 'vitest';
import { count, dims } from '../lib/dims.js';
import { ArgumentError, ShapeError } from '../lib/errors.js';

const shaped = (...shape: number[]) => ({ shape });

test('names sizes', () => {
	const { B, T, H, D } = dims('scan', { s: [shaped(2, 3, 4), 'B T H'], v: [shaped(2, 3, 4, 5), 'B T H D'] });
	expect([B, T, H, D]).toEqual([2, 3, 4, 5]);
});

test('a letter has one size', () => {
	expect(() => dims('scan', { s: [shaped(2, 3, 1), 'B T H'], v: [shaped(2, 3), 'B T H D'] })).toThrow(
		new ShapeError('scan: `v` has shape [2, 3], expected [B=2 T=3 H=1 D]'),
	);
	expect(() => dims('scan', { s: [shaped(2, 3), 'B T'], v: [shaped(2, 4), 'B T'] })).toThrow(
		new ShapeError('scan: `v` has shape [2, 4], expected [B=2 T=3]'),
	);
	expect(() => dims('square', { x: [shaped(2, 3), 'N N'] })).toThrow(ShapeError);
});

test('a number must be that size', () => {
	expect(dims('f', { x: [shaped(7, 3), 'N 3'] })).toEqual({ N: 7, 3: 3 });
	expect(() => dims('f', { x: [shaped(7, 4), 'N 3'] })).toThrow(new ShapeError('f: `x` has shape [7, 4], expected [N=7 3]'));
});

test('… is any number of dimensions in front', () => {
	expect(dims('f', { w: [shaped(3, 5), 'F C'], x: [shaped(8, 9, 5), '… C'] })).toEqual({ F: 3, C: 5 });
	expect(dims('f', { x: [shaped(5), '… C'] })).toEqual({ C: 5 });
	expect(dims('f', { x: [shaped(), '…'], y: [shaped(1, 2, 3), '…'] })).toEqual({});
	expect(() => dims('f', { x: [shaped(), '… C'] })).toThrow(ShapeError);
	expect(() => dims('f', { w: [shaped(3, 5), 'F C'], x: [shaped(8, 6), '… C'] })).toThrow(
		new ShapeError('f: `x` has shape [8, 6], expected [… C=5]'),
	);
});

test('what is left out leaves its letters free', () => {
	expect(dims('f', { a: [null, 'N M'], b: [undefined, 'N'], c: [shaped(4), 'N'] })).toEqual({ N: 4 });
});

test('sizes of 0 are sizes', () => {
	expect(dims('f', { a: [shaped(0, 3), 'N M'] })).toEqual({ N: 0, M: 3 });
	expect(() => dims('f', { a: [shaped(0), 'N'], b: [shaped(1), 'N'] })).toThrow(ShapeError);
});

test('types of elements', () => {
	const i32 = { shape: [2], dtype: 'i32' };
	expect(dims('f', { lengths: [i32, 'B', 'i32'] })).toEqual({ B: 2 });
	expect(() => dims('f', { x: [i32, 'B'] })).toThrow(new ArgumentError('f: `x` holds i32, expected f32'));
	expect(() => dims('f', { lengths: [{ shape: [2], dtype: 'f32' }, 'B', 'i32'] })).toThrow(
		new ArgumentError('f: `lengths` holds f32, expected i32'),
	);
});

test('count', () => {
	expect(count([])).toBe(1);
	expect(count([2, 3, 4])).toBe(24);
	expect(count([2, 0, 4])).toBe(0);
});
