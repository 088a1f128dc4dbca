import { expect, test } from 'vitest';
import { ArgumentError } from '../../lib/errors.js';
import { type ChatMessage, renderChat } from '../../lib/text/chat.js';

const messages: ChatMessage[] = [
	{ role: 'system', content: 'Be kind.' },
	{ role: 'user', content: ' Hi {{ bos_token }} ' },
];

const chatml =
	"{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}" +
	"{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/** As LLaMA 2's chat models have it: the system's words in the first message of the user, who speaks in turn with the assistant. */
const llama2 = `{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}{% for message in loop_messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate: user, assistant') }}{% endif %}
{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>' + system + '<</SYS>>' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}
{%- else %}{{ ' ' + content | trim + ' ' + eos_token }}{% endif %}{% endfor %}`;

test('the templates of two families', () => {
	const turns = '<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi {{ bos_token }} <|im_end|>\n';
	expect(renderChat(chatml, messages)).toBe(`${turns}<|im_start|>assistant\n`);
	expect(renderChat(chatml, messages, { addGenerationPrompt: false })).toBe(turns);
	expect(renderChat(chatml, [], { addGenerationPrompt: false })).toBe('');
	expect(renderChat('\n {% if true %} x{% endif %}\n\ny', [])).toBe('\n x\ny');
	const options = { bosToken: '<s>', eosToken: '</s>' };
	const more = [...messages, { role: 'assistant', content: 'Hello!' }, { role: 'user', content: 'Bye' }];
	expect(renderChat(llama2, more, options)).toBe(
		'<s>[INST] <<SYS>>Be kind.<</SYS>> Hi {{ bos_token }} [/INST] Hello! </s><s>[INST] Bye [/INST]',
	);
});

test('tools, and range as Python has it', () => {
	const tools = [{ type: 'function', function: { name: 'add' } }];
	const template = '{% if tools %}{{ tools[0].function.name }}{% else %}none{% endif %}';
	expect(renderChat(template, [], { tools })).toBe('add');
	expect(renderChat(template, [])).toBe('none');
	const ranges: [string, string][] = [
		['3', '0 1 2 '],
		['2, 5', '2 3 4 '],
		['5, 0, -2', '5 3 1 '],
		['1, 6, 3', '1 4 '],
		['4, 2', ''],
	];
	for (const [given, numbers] of ranges) expect(renderChat(`{% for i in range(${given}) %}{{ i }} {% endfor %}`, [])).toBe(numbers);
});

test('a template refuses in its own words', () => {
	const wrong = [messages[1]!, messages[1]!];
	expect(() => renderChat(llama2, wrong)).toThrow(ArgumentError);
	expect(() => renderChat(llama2, wrong)).toThrow('the chat template says: Roles must alternate: user, assistant');
});

test('there is no template, it is no Jinja, or messages are none', () => {
	const cases: [unknown, unknown, string][] = [
		[null, messages, 'the model has no chat template'],
		[5, messages, 'template is of type number'],
		['x'.repeat(2 ** 18 + 1), messages, 'template is 262145 characters long'],
		['{% if %}', messages, 'the chat template says:'],
		['{{ messages', messages, 'the chat template says:'],
		['{% for x in 5 %}{% endfor %}', messages, 'the chat template says:'],
		['{{ nothing() }}', messages, 'the chat template says:'],
		[chatml, 'Hi', 'messages are no list'],
		[chatml, [null], 'messages[0] is not made of text'],
		[chatml, [messages[0], { role: 'user', content: 5 }], 'messages[1] is not made of text'],
	];
	for (const [template, given, message] of cases) {
		const render = () => renderChat(template as string, given as ChatMessage[]);
		expect(render, message).toThrow(ArgumentError);
		expect(render).toThrow(message);
	}
});

test('hostile templates: endless loops, long ranges, deep nesting and growing texts end; the machine is out of reach', () => {
	const cases: [string, string][] = [
		[
			'{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}',
			'more than 2000 ms',
		],
		['{% for a in range(1000000000000) %}{% endfor %}', 'too long'],
		['{{ range(0, 5, 0) }}', 'too long'],
		[`{{ ${'('.repeat(100_000)}1${')'.repeat(100_000)} }}`, 'the chat template says:'],
		["{% set ns = namespace(a='x') %}{% for i in range(40) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}", 'Invalid string length'],
		[
			"{% set ns = namespace(a='x') %}{% for i in range(27) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}",
			'expected at most 67108864',
		],
		["{{ messages.constructor.constructor('return process')() }}", 'the chat template says:'],
		["{{ range.constructor('return process')() }}", 'the chat template says:'],
	];
	for (const [template, message] of cases) {
		const start = performance.now();
		expect(() => renderChat(template, messages), template.slice(0, 80)).toThrow(ArgumentError);
		expect(() => renderChat(template, messages), template.slice(0, 80)).toThrow(message);
		expect(performance.now() - start).toBeLessThan(10_000);
	}
	expect(renderChat('{{ messages.__proto__ }}{{ messages[0].constructor }}{{ bos_token.constructor }}', messages)).toBe('');
	expect(({} as Record<string, unknown>).polluted).toBe(undefined);
});
