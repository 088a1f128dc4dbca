// What a program for Node would do by itself: plain loops over typed arrays, one thread.

/** The scan token by token, as our kernel walks it. `s` [T, H], `v` and `o` [T, H, D] */
export function scan(s, v, o, T, H, D) {
	const m = new Float32Array(H).fill(-Infinity);
	const u = new Float32Array(H);
	const w = new Float32Array(H * D);
	for (let t = 0; t < T; t++) {
		for (let h = 0; h < H; h++) {
			const score = s[t * H + h];
			const next = Math.max(m[h], score);
			const a = Math.exp(m[h] - next);
			const b = Math.exp(score - next);
			u[h] = a * u[h] + b;
			m[h] = next;
			const inverse = 1 / u[h];
			const row = (t * H + h) * D;
			for (let d = 0; d < D; d++) {
				const value = a * w[h * D + d] + b * v[row + d];
				w[h * D + d] = value;
				o[row + d] = inverse * value;
			}
		}
	}
}

/**
 * Causal FAVOR+ token by token, as one would write it down: features of q and k, the state, the product. On random numbers.
 * @returns seconds
 */
export function favor({ T, H, D, M }) {
	const random = (n) => Float32Array.from({ length: n }, () => 2 * Math.random() - 1);
	const [q, k, v, omega, o] = [random(T * H * D), random(T * H * D), random(T * H * D), random(M * D), new Float32Array(T * H * D)];
	const [phiQ, phiK] = [new Float32Array(M), new Float32Array(M)];
	const factor = D ** -0.25;
	const features = (x, at, phi) => {
		let half = 0;
		let top = -Infinity;
		for (let d = 0; d < D; d++) half += (x[at + d] * factor) ** 2 / 2;
		for (let m = 0; m < M; m++) {
			let a = 0;
			for (let d = 0; d < D; d++) a += omega[m * D + d] * x[at + d];
			phi[m] = a * factor;
			top = Math.max(top, phi[m]);
		}
		for (let m = 0; m < M; m++) phi[m] = Math.exp(phi[m] - top) + 1e-6;
		return top - half;
	};
	const start = performance.now();
	for (let h = 0; h < H; h++) {
		const S = new Float32Array(M * D);
		const z = new Float32Array(M);
		let c = -Infinity;
		for (let t = 0; t < T; t++) {
			const at = (t * H + h) * D;
			const scale = features(k, at, phiK);
			features(q, at, phiQ);
			const next = Math.max(c, scale);
			const [keep, weight] = [Math.exp(c - next), Math.exp(scale - next)];
			c = next;
			let sum = 0;
			for (let m = 0; m < M; m++) {
				const part = weight * phiK[m];
				z[m] = keep * z[m] + part;
				sum += phiQ[m] * z[m];
				for (let d = 0; d < D; d++) {
					S[m * D + d] = keep * S[m * D + d] + part * v[at + d];
					o[at + d] += phiQ[m] * S[m * D + d];
				}
			}
			for (let d = 0; d < D; d++) o[at + d] /= sum;
		}
	}
	return (performance.now() - start) / 1000;
}
