#!/usr/bin/env node
import { constants } from 'node:os'
import { run } from './run.ts'
import type { Interruption } from './io.ts'

/** What a shell says of a command that a signal ended. */
const codeOf = (signal: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | 'SIGPIPE'): number => 128 + constants.signals[signal]

const listeners = new Set<(interruption: Interruption) => void>()
const interrupt = (interruption: Interruption): void => {
  for (const listener of listeners) listener(interruption)
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // With nothing to end early, as if nobody had listened.
    if (listeners.size === 0) process.exit(codeOf(signal))
    interrupt({ code: codeOf(signal), byHand: true })
  })
}
// The terminal is gone, or the reader (`| head`): nobody presses anything, however often it shows.
process.on('SIGHUP', () => interrupt({ code: codeOf('SIGHUP'), byHand: false }))

let failure: Error | undefined
for (const [name, stream] of Object.entries({ output: process.stdout, error: process.stderr })) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    const gone = error.code === 'EPIPE' || error.code === 'EIO'
    if (!gone && failure === undefined) {
      failure = error
      process.exitCode = 1
      if (stream !== process.stderr) process.stderr.write(`error: cannot write to standard ${name}: ${error.message}\n`)
    }
    interrupt({ code: gone ? codeOf('SIGPIPE') : 1, byHand: false })
  })
}

const code = await run(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  onInterrupt: (listener) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  },
  exit: (number) => {
    // Not `process.exit`, which waits for what is computed: nothing else gives the terminal back its cursor and its line wrapping.
    if (process.stderr.isTTY) process.stderr.write('\u001b[?25h\u001b[?7h')
    process.exitCode = number
    // A shell sees death by SIGINT as 130.
    process.removeAllListeners('SIGINT')
    process.kill(process.pid, 'SIGINT')
  },
})
process.exitCode = failure === undefined ? code : 1
