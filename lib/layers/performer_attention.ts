import { binding } from '../binding.js';
import { dims } from '../dims.js';
import { ArgumentError } from '../errors.js';
import { dropout } from '../ops/dropout.js';
import { reshape } from '../ops/elementwise.js';
import { type FavorKind, type FeatureMap, favor } from '../ops/favor.js';
import { linearAttention } from '../ops/linear_attention.js';
import { Random } from '../random.js';
import { Tensor } from '../tensor.js';
import { Linear } from './linear.js';
import { Mixer, type MixerOptions } from './mixer.js';
import { Rotary } from './rotary.js';
import { Scratch } from './scratch.js';
import { State } from './state.js';

export interface PerformerAttentionOptions extends MixerOptions {
	/** M, random features of a query or key. @default 256 */
	readonly features?: number | undefined;
	/** What the features stand for. @default 'softmax' */
	readonly featureKind?: FavorKind | undefined;
	/** Training steps between two draws of the features; 0: the first draw stays. @default 1000 */
	readonly redrawEvery?: number | undefined;
	/** Token t sees tokens up to t. Without, every token sees all, and there is no state. @default true */
	readonly causal?: boolean | undefined;
	/** Queries and keys are turned by their positions. @default false */
	readonly rope?: boolean | undefined;
	/** ε of the features, as in `FavorOptions`. @default that of the kind */
	readonly epsilon?: number | undefined;
}

/**
 * Attention by random features (FAVOR+), linear in the number of tokens. The same parameters as multi-head attention of this
 * width; Ω is not one: it is drawn from a seed, again every `redrawEvery` training steps, and stays as it is otherwise. Files
 * and checkpoints keep the seed and the number of the draw.
 *
 * Causal, its state is heads · (1 + M · (1 + dim/heads)) numbers a sequence, however many tokens were seen.
 * @see Choromanski et al. 2021, "Rethinking attention with Performers", sections 2 and 4
 */
export class PerformerAttention extends Mixer {
	readonly q: Linear;
	readonly k: Linear;
	readonly v: Linear;
	readonly out: Linear;
	readonly causal: boolean;
	readonly redrawEvery: number;
	readonly #rotary: Rotary | undefined;
	readonly #scratch: Scratch<'q' | 'k' | 'v' | 'o'>;
	#features: FeatureMap;
	/** Training steps that began with the draw of now. */
	#age = 0;

	constructor(options: PerformerAttentionOptions) {
		super('performer', options);
		const { dim, heads, redrawEvery = 1000, causal = true, rope = false, device } = options;
		if (!Number.isSafeInteger(redrawEvery) || redrawEvery < 0)
			throw new ArgumentError(`performer: redrawEvery is ${redrawEvery}, expected an integer from 0`);
		this.redrawEvery = redrawEvery;
		this.causal = causal;
		const random = options.random ?? new Random(options.seed ?? 0);
		const place = { ...options, random };
		this.q = this.part('q', new Linear(dim, dim, place));
		this.k = this.part('k', new Linear(dim, dim, place));
		this.v = this.part('v', new Linear(dim, dim, place));
		this.out = this.part('out', new Linear(dim, dim, place));
		const { features, featureKind: kind, epsilon } = options;
		const drawnBy = (seed: number) => favor({ kind, dim: dim / heads, features, epsilon, seed, device });
		this.#features = drawnBy(random.seed());
		this.#rotary = rope ? new Rotary('performer', dim / heads, device) : undefined;
		this.#scratch = new Scratch({ q: dim, k: dim, v: dim, o: dim });
		this.#keep(drawnBy);
	}

	/** What must come back with the parameters: which Ω it is, and how long it has been. */
	#keep(drawnBy: (seed: number) => FeatureMap): void {
		const layer = this;
		this.whole('seed', {
			below: 2 ** 53,
			get value() {
				return layer.#features.seed;
			},
			set value(seed) {
				if (seed === layer.#features.seed) return;
				const { draw } = layer.#features;
				layer.#features.dispose();
				layer.#features = drawnBy(seed);
				layer.#features.draw = draw;
			},
		});
		this.whole('draw', {
			below: 2 ** 32,
			get value() {
				return layer.#features.draw;
			},
			set value(draw) {
				layer.#features.draw = draw;
			},
		});
		this.whole('age', {
			below: 2 ** 53,
			get value() {
				return layer.#age;
			},
			set value(age) {
				layer.#age = age;
			},
		});
	}

	/** The feature map, with the Ω of now. */
	get features(): FeatureMap {
		return this.#features;
	}

	/** State bytes do not depend on how many tokens were seen: 4 · batch · heads · (1 + M · (1 + dim/heads)). */
	initialState({ batch = 1 }: { readonly batch?: number } = {}): State {
		this.#expectCausal();
		const { heads: H, dim, device } = this;
		const M = this.#features.features;
		const filled = (shape: number[], value: number) => {
			const tensor = Tensor.empty(shape, device);
			binding.fill(tensor.buffer, value, tensor.size);
			return tensor;
		};
		const tensors = {
			c: filled([batch, H], -Infinity),
			z: filled([batch, H, M], 0),
			S: filled([batch, H, M, dim / H], 0),
		};
		return new State('performer', batch, tensors, [], 0, { seed: this.#features.seed, draw: this.#features.draw });
	}

	protected mix(x: Tensor, state: State | undefined, lengths: Tensor | undefined): Tensor {
		const { B, T, C } = dims('PerformerAttention.forward', { x: [x, 'B T C'] });
		const { heads: H, causal } = this;
		if (state) this.#expect(state, B);
		const shape = [B, T, H, C / H];
		let q = reshape(this.q.forward(x), shape);
		let k = reshape(this.k.forward(x), shape);
		const v = reshape(this.v.forward(x), shape);
		if (this.#rotary) [q, k] = this.#rotary.turn([q, k] as const, state?.length ?? 0);
		const before = state && { c: state.get('c'), z: state.get('z'), S: state.get('S') };
		const { o, state: after } = linearAttention(q, k, v, { features: this.#features, causal, state: before, inPlace: true, lengths });
		if (state) {
			if (after !== before) for (const name of ['c', 'z', 'S'] as const) state.set(name, after[name]);
			state.length += T;
		}
		const joined = reshape(o, [B, T, C]);
		return this.out.forward(this.training ? dropout(joined, { rate: this.dropout, seed: this.drawSeed() }) : joined);
	}

	override get steps(): boolean {
		return this.causal;
	}

	override step(x: Tensor, state: State, y: Tensor): void {
		const { heads: H, dim: C } = this;
		const B = x.shape[0]!;
		this.#expect(state, B);
		const { q, k, v, o } = this.#scratch.of(B, x.device);
		const { omega, native, features: M } = this.#features;
		const c = state.get('c').buffer;
		const z = state.get('z').buffer;
		const S = state.get('S').buffer;
		this.q.into(x, q, B);
		this.k.into(x, k, B);
		this.v.into(x, v, B);
		this.#rotary?.turnOne([q, k], state.length);
		const inputs = [q.buffer, k.buffer, v.buffer, omega.buffer, c, z, S, null] as const;
		const sizes = [B, 1, H, H, C / H, C / H, M, native.feature, native.factor, native.epsilon, 64, true] as const;
		binding.linearAttention(...inputs, o.buffer, null, null, c, z, S, ...sizes);
		this.out.into(o, y, B);
		state.length++;
	}

	/** Of training alone: in evaluation nothing is counted and nothing is drawn. */
	protected override beginStep(): void {
		if (this.redrawEvery > 0 && this.#age >= this.redrawEvery) {
			this.#features.redraw();
			this.#age = 0;
		}
		this.#age++;
	}

	#expectCausal(): void {
		if (!this.causal)
			throw new ArgumentError('PerformerAttention: a state without `causal`, expected whole sequences (every token sees all of them)');
	}

	#expect(state: State, B: number): void {
		this.#expectCausal();
		state.expect('PerformerAttention.forward', 'performer', B);
		const { seed, draw } = state.about ?? {};
		const now = this.#features;
		if (seed === now.seed && draw === now.draw) return;
		throw new ArgumentError(
			`PerformerAttention.forward: the state is of draw ${draw} of seed ${seed}, expected ${now.draw} of ${now.seed} (features were drawn anew)`,
		);
	}

	override dispose(): void {
		this.#features.dispose();
		this.#rotary?.dispose();
		this.#scratch.dispose();
		super.dispose();
	}
}
