#!/usr/bin/env node
import { run } from './run.ts'

// A reader that goes away (`| head`) ends the command, not with a stack: as Ctrl-C does, so that a run saves what it has.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  if (!process.emit('SIGINT')) process.exit(0)
})

process.exitCode = await run(
  process.argv.slice(2),
  {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    onInterrupt: (listener) => {
      process.on('SIGINT', listener).on('SIGTERM', listener)
      return () => process.off('SIGINT', listener).off('SIGTERM', listener)
    },
    exit: (code) => {
      // Not `process.exit`: it ends the compute thread within a native call, which aborts. A shell sees death by SIGINT as 130.
      process.exitCode = code
      for (const listener of process.listeners('exit')) listener(code)
      process.removeAllListeners('SIGINT')
      process.kill(process.pid, 'SIGINT')
    },
  },
  () => import('../index.ts'),
)
