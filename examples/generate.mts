import { Llama, tova } from 'oplus';

using model = await Llama.load(process.argv[2]!); // weights are mapped, and used in the type they are stored in
using session = model.session({ cache: tova(512), positions: 'cache' }); // at most 512 states a layer, however long it runs

for await (const { text } of session.generate('Once upon a time', { temperature: 0.8, seed: 7, maxTokens: 200 })) {
	process.stdout.write(text);
}
console.log(`\n${session.position} tokens, ${session.states} states, ${session.bytes} bytes`);
