import { defineConfig } from 'vitest/config';

export default defineConfig({
	test: {
		pool: 'forks', // a crash in native code ends one file's process, not the run
		include: ['test/**/*.test.ts'],
		env: { OPLUS_POISON: '1' }, // fresh memory is NaN, so that reading what nobody wrote shows
		execArgv: ['--expose-gc'],
		testTimeout: 60_000,
		hookTimeout: 60_000,
	},
});
