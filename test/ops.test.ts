import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { devices } from '../lib/device.js';
import { checkDifferences, checkForward, checkGradient, checkRepeats } from './checks.js';
import { isSlow, type Subject, slowOperations, title } from './harness.js';

function check(subject: Subject): void {
	for (const { name: device } of devices()) {
		const cases = subject.cases.filter((sizes) => !isSlow(device) || subject.operations(sizes) <= slowOperations);
		test(`${device}: has cases`, () => expect(cases.length).toBeGreaterThan(0));
		for (const sizes of cases) {
			const where = `${device}, ${title(sizes)}`;
			test(`${where}: no further from the exact answer than twice the naive method`, () => checkForward(subject, sizes, device));
			if (subject.gradient) test(`${where}: gradients`, () => checkGradient(subject, sizes, device));
			test(`${where}: the same to the bit`, () => checkRepeats(subject, sizes, device));
		}
	}
	if (!subject.gradient || subject.straightThrough) return;
	for (const sizes of subject.cases.filter((each) => subject.operations(each) <= 10_000)) {
		test(`${title(sizes)}: the gradient's definition agrees with differences`, () => checkDifferences(subject, sizes));
	}
}

// One description a file, or one a member of a family.
describe('operations', async () => {
	const folder = path.join(__dirname, 'ops');
	for (const file of fs.readdirSync(folder).filter((name) => name.endsWith('.ts'))) {
		const { subject, subjects = [subject!] } = (await import(path.join(folder, file))) as { subject?: Subject; subjects?: Subject[] };
		for (const each of subjects) describe(each.name, () => check(each));
	}
});
