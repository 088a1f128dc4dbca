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
