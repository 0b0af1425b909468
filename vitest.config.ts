import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts', 'bench/**/*.test.ts', 'scripts/**/*.test.ts'],
    // Real models and a real runtime: slow on a small machine, and never mocked.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    restoreMocks: true,
    // Two files at once, also on two cores: tiny models keep one busy at most.
    maxWorkers: 2,
  },
})
