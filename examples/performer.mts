// A language model with linear attention, trained on a little grammar and then run one token at a time in constant memory.
import { fit, noGrad, Performer, Random } from 'oplus';

const words = ['.', 'the', 'a', 'cat', 'dog', 'sees', 'hears'];
const random = new Random(1);
const pick = (...choices: number[]) => choices[random.integer(choices.length)]!;

/** Sentences like "the cat hears a dog ." one after the other. */
function text(sentences: number): number[] {
	return Array.from({ length: sentences }, () => [pick(1, 2), pick(3, 4), pick(5, 6), pick(1, 2), pick(3, 4), 0]).flat();
}

using model = new Performer({ vocabulary: words.length, dim: 32, layers: 2, heads: 2, hidden: 64, features: 64, causal: true, seed: 1 });

const corpus = Array.from({ length: 64 }, () => text(6));
const data = {
	length: corpus.length,
	batch: (indices: readonly number[]) => ({
		x: indices.map((i) => corpus[i]!.slice(0, -1)),
		y: indices.map((i) => corpus[i]!.slice(1)),
	}),
};
for await (const { epoch, loss, epochEnd } of fit(model, data, { epochs: 40, batch: 16, rate: 5e-3, seed: 1 })) {
	if (epochEnd && epoch % 10 === 0) console.log(`epoch ${epoch}: ${loss.toFixed(3)} nats a word`);
}

using state = model.initialState();
const said: string[] = [];
let next = 0;
for (let i = 0; i < 12; i++) {
	using logits = noGrad(() => model.forward([[next]], state));
	const scores = await logits.read();
	next = scores.indexOf(Math.max(...scores));
	said.push(words[next]!);
}
console.log(`${said.join(' ')} (${state.length} words, ${state.bytes} bytes)`);
