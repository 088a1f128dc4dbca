/**
 * The native boundary: every function that the addon exports, and the shape of every buffer in letters. A test compares
 * this page with what the addon really exports, parameter by parameter (test/binding.test.ts).
 *
 * Letters: B batch, T time, S cached states, H query heads, G key-value heads (H a multiple of G), D head dimension,
 * C model width, F output width of a linear map, N rows, n elements. Row-major, last dimension contiguous.
 *
 * An operation queues its work on the device that its buffers live on and returns; the read of a result rejects if the work
 * failed. `Out` is written whole; `InOut` is read and written; `Maybe…` may be null. Gradients are `d` + name.
 */

/** Memory on a device: a handle that only the addon can look behind. */
export type Buffer = number & { readonly __brand: 'Buffer' };
export type In = Buffer;
export type Out = Buffer;
export type InOut = Buffer;
export type MaybeIn = Buffer | null;
export type MaybeOut = Buffer | null;
/** Elements are float unless the name says otherwise. */
export type InInt = Buffer;
export type MaybeInInt = Buffer | null;
export type OutInt = Buffer;
export type InOutInt = Buffer;
export type MaybeInOutInt = Buffer | null;
/** Bytes whose meaning another argument says. */
export type InBytes = Buffer;
export type OutBytes = Buffer;
export type InOutBytes = Buffer;
export type int = number;
export type float = number;

export interface Operations {
	// ---- element by element ------------------------------------------------------------------------------------
	/** x[n] ← value */
	fill(x: Out, value: float, n: int): void;
	/** y[r, i] = a[r, i] + b[i], r < rows, i < n: `b` is repeated over rows. rows = 1 adds like to like. y may be a. */
	add(a: In, b: In, y: Out, rows: int, n: int): void;
	/** y[r, i] = a[r, i] · b[i]. y may be a. */
	mul(a: In, b: In, y: Out, rows: int, n: int): void;
	/** y[i] = factor · x[i]. y may be x. */
	scale(x: In, y: Out, factor: float, n: int): void;
	/** y[i] += x[i] */
	accumulate(x: In, y: InOut, n: int): void;
	/** y[o, i] = Σ_k x[o, k, i], k < n: x is [outer, n, inner]. Always summed in the same order. */
	sum(x: In, y: Out, outer: int, n: int, inner: int): void;
	/** y[o·yStride + yOffset + i] = x[o·xStride + xOffset + i], o < outer, i < width: a slice or a part of a concatenation. */
	copyBlock(x: In, y: InOut, outer: int, width: int, xStride: int, xOffset: int, yStride: int, yOffset: int): void;
	/** y = x · Φ(x), the exact GELU (erf). */
	gelu(x: In, y: Out, n: int): void;
	geluBackward(x: In, g: In, dx: Out, n: int): void;
	/**
	 * y[i] = x[i] / (1 − rate) where uniform(seed, i) ≥ rate, else 0. The draw depends on (seedLow, seedHigh, i) only
	 * (native/ops/dropout.h), so the gradient is the same call on g.
	 */
	dropout(x: In, y: Out, rate: float, seedLow: int, seedHigh: int, n: int): void;

	// ---- matrix products ---------------------------------------------------------------------------------------
	/** y[N, F] = x[N, C] · w[F, C]ᵀ + b[F] */
	linear(x: In, w: In, b: MaybeIn, y: Out, N: int, C: int, F: int): void;
	/** y[M, N] = op(a) · op(b), op(a) [M, K] stored [K, M] if transposeA; op(b) [K, N] stored [N, K] if transposeB. */
	matmul(a: In, b: In, y: Out, M: int, N: int, K: int, transposeA: boolean, transposeB: boolean): void;
	/**
	 * The key projection folded into one vector a head (algorithms A.5): a[h, c] = factor · Σ_d q[h, d] · w[h·D + d, c].
	 * q [H, D], w [H·D, C], a [H, C].
	 */
	foldQuery(q: In, w: In, a: Out, H: int, D: int, C: int, factor: float): void;
	/** da [H, C] → dq [H, D], dw [H·D, C] */
	foldQueryBackward(q: In, w: In, da: In, dq: Out, dw: Out, H: int, D: int, C: int, factor: float): void;

	// ---- normalisation -----------------------------------------------------------------------------------------
	/** y = (x − mean) · rstd · gamma + beta over the last dimension. x, y [N, C]; gamma, beta [C]; mean, rstd [N]. */
	layerNorm(x: In, gamma: In, beta: In, y: Out, mean: MaybeOut, rstd: MaybeOut, N: int, C: int, epsilon: float): void;
	layerNormBackward(g: In, x: In, gamma: In, mean: In, rstd: In, dx: Out, dgamma: Out, dbeta: Out, N: int, C: int): void;

	// ---- attention ---------------------------------------------------------------------------------------------
	/**
	 * Attention of a fixed query over every prefix (algorithms A.1). s [B, T, H], v [B, T, G, D]; head h reads value group
	 * floor(h / (H / G)). State in (m0 [B, H], u0 [B, H], w0 [B, H, D]: all or none) and out (m, u, w; may be the same
	 * buffers as m0, u0, w0). o [B, T, H, D]; L [B, T, H] = m + ln u of each prefix (−∞ for an empty one). lengths [B]
	 * (i32): tokens at t ≥ lengths[b] take no part; their o is 0 and their L is −∞ there. reverse: suffixes instead of
	 * prefixes. A token with s = −∞ takes no part (its v is not looked at); an empty prefix gives o = 0.
	 */
	scan(
		s: In,
		v: In,
		m0: MaybeIn,
		u0: MaybeIn,
		w0: MaybeIn,
		lengths: MaybeInInt,
		o: MaybeOut,
		L: MaybeOut,
		m: Out,
		u: Out,
		w: Out,
		B: int,
		T: int,
		H: int,
		G: int,
		D: int,
		reverse: boolean,
	): void;
	/** (m, u, w) = (m1, u1, w1) ⊕ (m2, u2, w2) for n heads: m, u [n], w [n, D]. The result may be either operand's memory. */
	join(m1: In, u1: In, w1: In, m2: In, u2: In, w2: In, m: Out, u: Out, w: Out, n: int, D: int): void;
	/**
	 * Its gradient (algorithms B). g [B, T, H, D] = ∂ℓ/∂o or null; m [B, H], du [B, H], dw [B, H, D]: final m and ∂ℓ/∂(u, w) of the
	 * final state, all or none; m0, u0, w0 as given to scan. ds [B, T, H]; dv [B, T, H, D] (one for every query head: sum over
	 * the H / G heads of a group for the gradient of v); du0, dw0: gradients of the incoming state (m0 is a constant).
	 */
	scanBackward(
		s: In,
		v: In,
		m0: MaybeIn,
		u0: MaybeIn,
		w0: MaybeIn,
		lengths: MaybeInInt,
		o: In,
		L: In,
		g: MaybeIn,
		m: MaybeIn,
		du: MaybeIn,
		dw: MaybeIn,
		ds: Out,
		dv: Out,
		du0: MaybeOut,
		dw0: MaybeOut,
		B: int,
		T: int,
		H: int,
		G: int,
		D: int,
		reverse: boolean,
	): void;
	/**
	 * Exact attention with grouped query heads, scores scaled by 1/√D. q [B, T, H, D]; k, v [B, capacity, G, D] of which the
	 * first S rows are filled; o [B, T, H, D]; L [B, T, H] log-sum-exp of the scaled scores. causal: query t sees keys
	 * j ≤ S − T + t. lengths [B] (i32): keys at j ≥ lengths[b] are not seen; a query that sees nothing gives 0 and L = −∞.
	 */
	attend(
		q: In,
		k: In,
		v: In,
		lengths: MaybeInInt,
		o: Out,
		L: MaybeOut,
		B: int,
		T: int,
		S: int,
		H: int,
		G: int,
		D: int,
		capacity: int,
		causal: boolean,
	): void;
	/** dq [B, T, H, D]; dk, dv [B, S, G, D]. capacity = S. */
	attendBackward(
		q: In,
		k: In,
		v: In,
		lengths: MaybeInInt,
		o: In,
		L: In,
		g: In,
		dq: Out,
		dk: Out,
		dv: Out,
		B: int,
		T: int,
		S: int,
		H: int,
		G: int,
		D: int,
		causal: boolean,
	): void;

	/**
	 * Attention by products of features (FAVOR+; native/ops/favor.h has the kinds, their numbers and the state). q [B, T, H, D],
	 * k [B, T, G, D], v [B, T, G, E], omega [M, D]; o [B, T, H, E], R [B, T, H] its normalisers. State in (c0 [B, G], z0 [B, G, M],
	 * S0 [B, G, M, E]: all or none) and out (c, z, S; may be the same buffers). lengths [B] (i32): tokens at t ≥ lengths[b] take
	 * no part and give 0. marks [B, G, ceil(T / every), 1 + M + M·E]: c, z, S before every `every` tokens (a multiple of 64), or
	 * without `causal` [B, G, 1, …]: after all of them.
	 */
	linearAttention(
		q: In,
		k: In,
		v: In,
		omega: In,
		c0: MaybeIn,
		z0: MaybeIn,
		S0: MaybeIn,
		lengths: MaybeInInt,
		o: Out,
		R: MaybeOut,
		marks: MaybeOut,
		c: Out,
		z: Out,
		S: Out,
		B: int,
		T: int,
		H: int,
		G: int,
		D: int,
		E: int,
		M: int,
		feature: int,
		factor: float,
		epsilon: float,
		every: int,
		causal: boolean,
	): void;
	/** g [B, T, H, E] = ∂ℓ/∂o; dz, dS: ∂ℓ of the final state; dz0, dS0: of the incoming one (c is a constant). `every` ≤ 2048. */
	linearAttentionBackward(
		q: In,
		k: In,
		v: In,
		omega: In,
		lengths: MaybeInInt,
		o: In,
		R: In,
		marks: In,
		g: MaybeIn,
		dz: MaybeIn,
		dS: MaybeIn,
		dq: Out,
		dk: Out,
		dv: Out,
		dz0: MaybeOut,
		dS0: MaybeOut,
		B: int,
		T: int,
		H: int,
		G: int,
		D: int,
		E: int,
		M: int,
		feature: int,
		factor: float,
		epsilon: float,
		every: int,
		causal: boolean,
	): void;

	// ---- pretrained decoders -----------------------------------------------------------------------------------
	// Stored weights (`kind`): 0 f32, 1 f16, 2 bf16, 3 q8_0, 4 q4_0, 5 q4_k, 6 q6_k, blocks along the last dimension, laid out as
	// native/ops/stored.h says. P choosers: 1 where all heads of a layer keep the same entries, G where each has its own.
	/** y[N, C] = rows ids[N] of w [V, C], widened. */
	embedStored(ids: InInt, w: InBytes, y: Out, kind: int, N: int, V: int, C: int): void;
	/** dw[v] = Σ g[n] over ids[n] = v, in the order of n: the gradient of rows of an f32 w. g [N, C]; dw [V, C]. */
	embedBackward(ids: InInt, g: In, dw: Out, N: int, V: int, C: int): void;
	/** y[N, F] = x[N, C] · w[F, C]ᵀ + b[F], sums in f32. */
	linearStored(x: In, w: InBytes, b: MaybeIn, y: Out, kind: int, N: int, C: int, F: int): void;
	/** y = the rows of x [N, C], stored as `to` (0 to 3) and not as `from`. Of blocks that are not finite, the scale is not. */
	convertStored(x: InBytes, y: OutBytes, from: int, to: int, N: int, C: int): void;
	/** found[1] = the first of n stored weights that is not finite, or whose block's scale is not; −1: all are. */
	firstFault(w: InBytes, found: OutInt, kind: int, n: int): void;
	/** y = x · gamma / √(mean x² + epsilon) over the last dimension. x, y [N, C]; gamma [C]. y may be x. */
	rmsNorm(x: In, gamma: In, y: Out, N: int, C: int, epsilon: float): void;
	rmsNormBackward(g: In, x: In, gamma: In, dx: Out, dgamma: Out, N: int, C: int, epsilon: float): void;
	/** y = a · sigmoid(a) · b. y may be a or b. */
	swiglu(a: In, b: In, y: Out, n: int): void;
	swigluBackward(a: In, b: In, g: In, da: Out, db: Out, n: int): void;
	/**
	 * table [n, half, 2] = magnitude · (cos, sin) of positions[n] · frequency; frequencies [half, 2]: each a double, as the sum of
	 * two floats.
	 */
	rotations(positions: InInt, frequencies: In, table: Out, n: int, half: int, magnitude: float): void;
	/**
	 * Pairs (a, b) of a head → (a cos − b sin, a sin + b cos). x, y [n, H, D]; table [n, D / 2, 2]; pairs are neighbours
	 * (2p, 2p + 1), or (p, p + D / 2). y may be x.
	 */
	rope(x: In, table: In, y: Out, n: int, H: int, D: int, neighbours: boolean): void;
	/** Its gradient: the turn by the opposite angles. dx may be g. */
	ropeBackward(g: In, table: In, dx: Out, n: int, H: int, D: int, neighbours: boolean): void;
	/**
	 * Decoder steps over a bounded cache, token after token (algorithms D.1, D.2). q [B, T, H, D]; k, v [B, T, G, D]; keys, values
	 * [B, G, S, D] (`kind` 0 f32, 1 f16); positions, scores, ranks [B, P, S]; table [S + 1, D / 2, 2]; seen, lengths [B]; o [B, T, H, D];
	 * received [B, P, S + 1]. Token t < lengths[b] of sequence b has position p = seen[b] + t and finds held = min(p, S) slots filled.
	 * 1. It attends, scaled by 1/√D, to every held entry whose position is above p − reach, and to itself. With a table, keys lie
	 *    unturned in the cache: that of a slot is turned by row ranks[slot], the query and the new key by row `held`.
	 * 2. Every entry receives its probability: P = 1: the mean over all query heads, P = G: the sum over the group's. scores ← keep ·
	 *    scores + received; the new entry's score is what it received (rule 2 alone keeps scores).
	 * 3. If held < S the new entry goes to slot `held`. Else rule 0 fails; by rule 1 the entry of the lowest position goes, by rule 2 that of
	 *    the lowest score (on a tie, of the lowest position), the new one too, but for positions below `sinks` and the `recent` newest;
	 *    the new entry overwrites its slot, and ranks above its rank go down by one. By rule 3 (T = 1) nothing changes: see cachePut.
	 * received, with T = 1: of the slots (0 where there is none), and at S of the new entry.
	 */
	cacheAttend(
		q: In,
		k: In,
		v: In,
		keys: InOutBytes,
		values: InOutBytes,
		positions: InOutInt,
		scores: InOut,
		ranks: MaybeInOutInt,
		table: MaybeIn,
		seen: InInt,
		lengths: MaybeInInt,
		o: Out,
		received: MaybeOut,
		B: int,
		T: int,
		H: int,
		G: int,
		D: int,
		S: int,
		P: int,
		rule: int,
		sinks: int,
		recent: int,
		keep: float,
		reach: int,
		kind: int,
		neighbours: boolean,
	): void;
	/**
	 * received [B, P, capacity]: to each of the first S += what key j receives from the queries from t = `first` on, causally, as
	 * e^(q·k / √D − L) with q, k, L as `attend` has them: P = 1: the mean over all heads, P = G: the sum over the group's.
	 */
	cacheReceived(
		q: In,
		k: In,
		L: In,
		received: InOut,
		B: int,
		T: int,
		S: int,
		H: int,
		G: int,
		D: int,
		capacity: int,
		first: int,
		P: int,
	): void;
	/**
	 * What rule 3 left to its caller: k, v [B, G, D] of position seen[b] overwrite slot slots[b, p] (S: they are dropped themselves),
	 * with score fresh[b, p].
	 */
	cachePut(
		k: In,
		v: In,
		keys: InOutBytes,
		values: InOutBytes,
		positions: InOutInt,
		scores: InOut,
		ranks: MaybeInOutInt,
		slots: InInt,
		fresh: In,
		seen: InInt,
		B: int,
		G: int,
		D: int,
		S: int,
		P: int,
		kind: int,
	): void;

	// ---- training ----------------------------------------------------------------------------------------------
	/** loss[1] = mean (x − y)² */
	meanSquaredError(x: In, y: In, loss: Out, n: int): void;
	/** dx = g[0] · 2 (x − y) / n */
	meanSquaredErrorBackward(x: In, y: In, g: In, dx: Out, n: int): void;
	/** loss[n] = ln Σ_v e^logits[n, v] − logits[n, targets[n]]; logits [N, V]. A row whose target is −1 takes no part: 0. */
	crossEntropy(logits: In, targets: InInt, loss: Out, N: int, V: int): void;
	/** dlogits[n] = g[n] · (softmax(logits[n]) − onehot(targets[n])); 0 where the target is −1. g [N]. */
	crossEntropyBackward(logits: In, targets: InInt, g: In, dlogits: Out, N: int, V: int): void;
	/** total[1] += Σ x² */
	sumSquares(x: In, total: InOut, n: int): void;
	/**
	 * One AdamW step (Loshchilov & Hutter 2019, algorithm 2), gradient scaled by min(1, clip / √total[0]) if clip > 0:
	 * p ← p − rate · (m̂ / (√v̂ + epsilon) + decay · p), m̂ = m / correction1, v̂ = v / correction2.
	 */
	adamw(
		p: InOut,
		g: In,
		m: InOut,
		v: InOut,
		total: MaybeIn,
		clip: float,
		rate: float,
		beta1: float,
		beta2: float,
		epsilon: float,
		decay: float,
		correction1: float,
		correction2: float,
		n: int,
	): void;

	// ---- storage -----------------------------------------------------------------------------------------------
	/** f32 → 16-bit storage; kind 0: f16 (IEEE half), 1: bf16. Rounds to nearest even; NaN stays NaN. */
	narrow(x: In, y: OutHalf, kind: int, n: int): void;
	/** 16-bit storage → f32 */
	widen(x: InHalf, y: Out, kind: int, n: int): void;
}
export type InHalf = Buffer;
export type OutHalf = Buffer;

export interface MemoryUse {
	/** Bytes that tensors and queued work hold now. */
	bytes: number;
	/** The most that `bytes` has been. */
	peakBytes: number;
	/** Buffers held now. */
	buffers: number;
	/** Bytes kept for reuse, beyond `bytes`. */
	cachedBytes: number;
}

export interface NativeDevice {
	name: string;
	model: string;
	/** Bytes in all; 0 when unknown. */
	memory: number;
	/** CUDA compute capability × 10; 0 for the CPU. */
	capability: number;
}

export interface Runtime {
	/** New memory of `bytes` bytes on a device, filled from `data` if given (copied before the call returns). */
	create(device: string, bytes: int, data: ArrayBufferView | null): Buffer;
	/**
	 * `bytes` bytes of a file from `offset` on: on the CPU its own pages, read when they are used, not counted by `memory` and never
	 * written. A copy on other devices, and where `offset` is no multiple of `alignment`.
	 */
	map(device: string, path: string, offset: int, bytes: int, alignment: int): Buffer;
	/** Overwrite from the front (copied before the call returns; queued like an operation). */
	write(buffer: Buffer, data: ArrayBufferView): void;
	/** Free. Work already queued still runs. Disposing twice is fine. */
	dispose(buffer: Buffer): void;
	/** All queued work on the buffer is awaited. The array itself when nothing is queued, else a promise of it. */
	read(buffer: Buffer): ArrayBuffer | Promise<ArrayBuffer>;
	/** Wait until everything queued on the device so far has run. */
	synchronize(device: string): Promise<void>;
	devices(): { devices: NativeDevice[]; absent: { name: string; reason: string }[] };
	memory(device: string): MemoryUse;
	/** Give cached memory back to the system. */
	trim(device: string): void;
	/** Threads that CPU operations use, the calling one included; 0: as many as the process may use. */
	setThreads(n: int): void;
	/** The classes of errors to throw, by code. Called once, by lib/binding.ts. */
	errors(classes: Record<string, new (message: string) => Error>): void;
	/** What the CPU operations run on. */
	cpu(): { target: string; threads: number };
}

export type Binding = Operations & Runtime;
