import { defineConfig } from 'vitest/config'

// Real models and a real runtime: slow on a small machine, and never mocked.
const timeouts = { testTimeout: 60_000, hookTimeout: 60_000 }

/** Tests of files in `src` that start the runtime, or try thousands of runs: they are not part of the quick ones. */
const slow = ['src/engine/**', 'src/train/watch-spikes.test.ts', 'src/text/**', 'src/model/bitsandbytes/**'].map(
  (path) => path.replace('**', '**/*.test.ts'),
)

/** Sees in which order files of commands are run: another test in its process would have run some before. */
const first = 'src/cli/commands.test.ts'

/** Measures what a process takes, which is more where others keep its garbage collector waiting: run once these are done. */
const alone = 'test/e2e/memory.test.ts'

export default defineConfig({
  test: {
    restoreMocks: true,
    // A project that is not isolated loads modules once for all its files: the quick tests take 32 s instead of 57.
    // Two files at once, also on two cores: tiny models keep one busy at most.
    maxWorkers: 2,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts', 'test/*.test.ts'],
          exclude: [...slow, first, 'test/package.test.ts'],
          isolate: false,
          ...timeouts,
        },
      },
      {
        test: {
          name: 'runtime',
          include: [...slow, 'test/golden/**/*.test.ts', 'bench/**/*.test.ts'],
          isolate: false,
          ...timeouts,
        },
      },
      {
        test: {
          name: 'e2e',
          include: [first, 'test/package.test.ts', 'test/{e2e,fuzz}/**/*.test.ts', 'scripts/**/*.test.ts'],
          exclude: [alone],
          ...timeouts,
        },
      },
      { test: { name: 'memory', include: [alone], sequence: { groupOrder: 1 }, ...timeouts } },
    ],
  },
})
