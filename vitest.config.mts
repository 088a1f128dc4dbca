import { defineConfig } from 'vitest/config';

export default defineConfig({
	test: {
		pool: 'forks', // a crash in native code ends one file's process, not the run
		include: ['test/**/*.test.ts'],
		testTimeout: 60_000,
		hookTimeout: 60_000,
	},
});
