import { expect, test } from 'vitest';
import { ArgumentError } from '../../lib/errors.js';
import { chat } from '../../lib/generate/chat.js';
import { all, ByteTokenizer, FakeDecoder, scripted } from './fakes.js';

const template =
	'{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}you: {% endif %}';

test('the prompt is what the template makes of the messages, and nothing is put before it', async () => {
	const expected = '<256>user: Hello<257>you: ';
	const decoder = new FakeDecoder(258, scripted(Buffer.from('Hi!'), expected.length));
	const messages = [{ role: 'user', content: 'Hello' }];
	const pieces = await all(chat(decoder, new ByteTokenizer([], template), messages, { temperature: 0 }));
	expect(Buffer.from(decoder.calls[0]!).toString()).toBe(expected);
	expect(pieces.map(({ text }) => text).join('')).toBe('Hi!');
	expect(pieces.at(-1)!.reason).toBe('eos');

	const other = new FakeDecoder(258);
	await all(chat(other, new ByteTokenizer(), messages, { template: 'T{{ messages[0].content }}', maxTokens: 1 }));
	expect(Buffer.from(other.calls[0]!).toString()).toBe('THello');
});

test('refused at once: no template', () => {
	expect(() => chat(new FakeDecoder(258), new ByteTokenizer(), [{ role: 'user', content: 'Hello' }])).toThrow(ArgumentError);
});
