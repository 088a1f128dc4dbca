import { Readable } from 'node:stream';
import type { Piece } from './sequence.js';

/**
 * The text of a generation as a stream of Node. Nothing is generated ahead of what is read, but for one piece. Destroying the stream
 * ends the generation, and the step that is under way; an error of the generation destroys the stream.
 *
 * @param options.highWaterMark generate ahead while fewer characters than this wait to be read. @default 1
 * @example toStream(generate(session, tokenizer, prompt)).pipe(response);
 */
export function toStream(pieces: AsyncGenerator<Piece, void>, options: { readonly highWaterMark?: number } = {}): Readable {
	return new Readable({
		encoding: 'utf8',
		highWaterMark: options.highWaterMark ?? 1,
		read() {
			nextText(pieces).then(
				(text) => this.push(text),
				(error) => this.destroy(error as Error),
			);
		},
		destroy(error, done) {
			pieces.return().then(
				() => done(error),
				(late) => done(error ?? (late as Error)),
			);
		},
	});
}

/** The next text that is not empty; null at the end. */
async function nextText(pieces: AsyncGenerator<Piece, void>): Promise<string | null> {
	for (;;) {
		const { done, value } = await pieces.next();
		if (done) return null;
		if (value.text !== '') return value.text;
	}
}
