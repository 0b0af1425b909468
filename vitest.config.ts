import { defineConfig } from 'vitest/config'

// Real models and a real runtime: slow on a small machine, and never mocked.
const timeouts = { testTimeout: 60_000, hookTimeout: 60_000 }

/** Tests of files in `src` that start the runtime, or try thousands of runs: they are not part of the quick ones. */
const slow = ['src/engine/**', 'src/train/watch-spikes.test.ts', 'src/text/**', 'src/model/bitsandbytes/**']

/** Measures what a process takes, which is more where others keep its garbage collector waiting: run once these are done. */
const alone = 'test/e2e/memory.test.ts'

export default defineConfig({
  test: {
    restoreMocks: true,
    // Two files at once, also on two cores: tiny models keep one busy at most.
    maxWorkers: 2,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts', 'test/*.test.ts'],
          exclude: [...slow, 'test/package.test.ts'],
          ...timeouts,
        },
      },
      {
        test: {
          name: 'e2e',
          include: [
            ...slow.map((path) => path.replace('**', '**/*.test.ts')),
            'test/package.test.ts',
            'test/*/**/*.test.ts',
            'bench/**/*.test.ts',
            'scripts/**/*.test.ts',
          ],
          exclude: [alone],
          ...timeouts,
        },
      },
      { test: { name: 'memory', include: [alone], sequence: { groupOrder: 1 }, ...timeouts } },
    ],
  },
})
