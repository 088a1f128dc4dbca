import type { DeviceName } from '../device.js';
import { ArgumentError, DisposedError } from '../errors.js';
import { persist, type Resource, Tensor } from '../tensor.js';
import { drawOmega, type Projection } from './omega.js';

/**
 * What φ(q)·φ(k) stands for, with ω the rows of Ω, x̂ = x / dim^¼ and a = ω·x̂:
 * - `softmax`: e^(a − ‖x̂‖²/2), positive features; the expectation is e^(q·k / √dim), as attention has it (lemma 1);
 * - `hyperbolic`: the same for ω and −ω, which has less variance;
 * - `regularised`: the same with rows of length √dim (SMREG): biased low, converges faster;
 * - `trigonometric`: e^(‖x̂‖²/2) cos a and sin a: unbiased too, but signed and unbounded; for comparison;
 * - the others: f(a) + ε, generalised attention. `relu` is what the paper calls Performer-ReLU; `elu` is elu(a) + 1.
 */
export type FavorKind = keyof typeof functions;

/** The numbers that native/ops/favor.h gives them. */
const functions = {
	softmax: 0,
	hyperbolic: 0,
	regularised: 0,
	trigonometric: 1,
	relu: 2,
	sigmoid: 3,
	exp: 4,
	abs: 5,
	gelu: 6,
	cos: 7,
	tanh: 8,
	identity: 9,
	elu: 10,
} as const;

export const favorKinds = Object.keys(functions) as readonly FavorKind[];

export interface FavorOptions {
	/** @default 'softmax' */
	readonly kind?: FavorKind | undefined;
	/** D, the width of queries and keys. */
	readonly dim: number;
	/** M, features of a token; even for `hyperbolic` and `trigonometric`, whose rows come twice. @default 256 */
	readonly features?: number | undefined;
	/**
	 * Rows of Ω: `orthogonal` in blocks of `dim`; `iid`, each by itself; `none`: Ω is the identity over and over, so that with
	 * `features: dim` a generalised kind is f(x̂) itself.
	 * @default 'orthogonal'
	 */
	readonly projection?: Projection | undefined;
	/** ε: added to every feature, relative to the token's largest for the exponential kinds. @default 1e-6, 0, or 1e-3 for generalised kinds */
	readonly epsilon?: number | undefined;
	/** An integer in [0, 2⁵³). @default 0 */
	readonly seed?: number | undefined;
	/** @default 'cpu' */
	readonly device?: DeviceName | undefined;
}

/** A feature map of linear attention: the kind of features and the projection Ω they are made with. */
export class FeatureMap implements Resource {
	readonly kind: FavorKind;
	/** D */
	readonly dim: number;
	/** M */
	readonly features: number;
	readonly projection: Projection;
	readonly epsilon: number;
	readonly seed: number;
	readonly device: DeviceName | undefined;
	#draw = 0;
	#omega: Tensor | undefined;
	#disposed = false;

	constructor(options: FavorOptions) {
		const { kind = 'softmax', dim, features = 256, projection = 'orthogonal', seed = 0 } = options;
		if (!Object.hasOwn(functions, kind)) throw new ArgumentError(`favor: kind is ${kind}, expected one of ${favorKinds.join(', ')}`);
		if (!Number.isInteger(dim) || dim < 1) throw new ArgumentError(`favor: dim is ${dim}, expected a positive integer`);
		const twice = kind === 'hyperbolic' || kind === 'trigonometric';
		if (!Number.isInteger(features) || features < 1 || (twice && features % 2)) {
			throw new ArgumentError(`favor: features is ${features}, expected a positive ${twice ? 'even ' : ''}integer`);
		}
		if (!['orthogonal', 'iid', 'none'].includes(projection)) {
			throw new ArgumentError(`favor: projection is ${projection}, expected orthogonal, iid or none`);
		}
		if (!Number.isSafeInteger(seed) || seed < 0) throw new ArgumentError(`favor: seed is ${seed}, expected an integer in [0, 2⁵³)`);
		const epsilon = options.epsilon ?? (functions[kind] === 0 ? 1e-6 : kind === 'trigonometric' ? 0 : 1e-3);
		if (!(epsilon >= 0 && epsilon < Infinity)) throw new ArgumentError(`favor: epsilon is ${epsilon}, expected a number from 0 up`);
		this.kind = kind;
		this.dim = dim;
		this.features = features;
		this.projection = projection;
		this.epsilon = epsilon;
		this.seed = seed;
		this.device = options.device;
	}

	/** Ω `[M, D]`, drawn when it is first asked for. */
	get omega(): Tensor {
		if (this.#disposed) throw new DisposedError('favor: the feature map has been disposed of');
		this.#omega ??= persist(Tensor.empty([this.features, this.dim], this.device, 'f32', Float32Array.from(this.#rows())));
		return this.#omega;
	}

	/** Which draw of the seed Ω is. Setting it is how a saved Ω comes back. */
	get draw(): number {
		return this.#draw;
	}

	set draw(draw: number) {
		if (!Number.isInteger(draw) || draw < 0 || draw >= 2 ** 32) {
			throw new ArgumentError(`favor: draw is ${draw}, expected an integer in [0, 2³²)`);
		}
		if (draw === this.#draw) return;
		this.#draw = draw;
		this.#omega?.dispose();
		this.#omega = undefined;
	}

	/** The next Ω of the seed. States that were made with the one before mean nothing to it. */
	redraw(): void {
		this.draw = this.#draw + 1;
	}

	/** What the native operation takes. */
	get native(): { readonly feature: number; readonly factor: number; readonly epsilon: number } {
		return { feature: functions[this.kind], factor: this.dim ** -0.25, epsilon: this.epsilon };
	}

	get bytes(): number {
		return this.#omega?.bytes ?? 0;
	}

	get disposed(): boolean {
		return this.#disposed;
	}

	#rows(): Float64Array {
		const { kind, dim, features, projection, seed } = this;
		const twice = kind === 'hyperbolic' || kind === 'trigonometric';
		const rows = twice ? features / 2 : features;
		const drawn = drawOmega(rows, dim, { projection, regularised: kind === 'regularised', seed, draw: this.#draw });
		if (!twice) return drawn;
		const sign = kind === 'hyperbolic' ? -1 : 1;
		return Float64Array.from([...drawn, ...drawn.map((x) => sign * x)]);
	}

	/** Also of a map whose Ω nobody asked for: it is not drawn any more. */
	dispose(): void {
		this.#disposed = true;
		this.#omega?.dispose();
	}

	[Symbol.dispose](): void {
		this.dispose();
	}
}

/**
 * A feature map for `linearAttention`.
 * @see Choromanski et al. 2021, "Rethinking attention with Performers"
 */
export function favor(options: FavorOptions): FeatureMap {
	return new FeatureMap(options);
}
