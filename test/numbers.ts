/** The largest absolute difference; NaN or a different length counts as infinite. */
export function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
	if (a.length !== b.length) return Infinity;
	let most = 0;
	for (let i = 0; i < a.length; i++) {
		const difference = Math.abs(a[i]! - b[i]!);
		if (!(difference <= most)) most = Number.isNaN(difference) && !Object.is(a[i], b[i]) ? Infinity : Math.max(most, difference || 0);
	}
	return most;
}
