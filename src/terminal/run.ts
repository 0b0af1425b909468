import type { EventOf, TrainEvent } from '../train/events.ts'
import { doneLines, sampleLines } from './events.ts'
import { widthOf, type SafeOutput } from './output.ts'
import { openProgress } from './progress.ts'

interface RunTerminal {
  readonly stdout: SafeOutput
  readonly stderr: SafeOutput
  readonly json: boolean
  readonly signal: AbortSignal
}

/** Draws the events of a run, then its samples and summary, with the next command to try. */
export async function drawRun(
  events: AsyncGenerator<TrainEvent, void>,
  { stdout, stderr, json, signal }: RunTerminal,
  next: string | undefined,
): Promise<void> {
  const progress = openProgress(stderr)
  const onAbort = (): void => progress.line('stopping after this step; Ctrl-C again quits at once')
  signal.addEventListener('abort', onAbort, { once: true })
  const samples: EventOf<'sample'>[] = []
  try {
    for await (const event of events) {
      if (json) stdout.write(`${JSON.stringify(event)}\n`)
      if (event.type === 'sample') samples.push(event)
      if (event.type !== 'done') {
        progress.event(event)
        continue
      }
      progress.close()
      // Standard output belongs to the JSON lines where they are asked for.
      const output = json ? stderr : stdout
      const lines = [...sampleLines(samples, widthOf(output)), ...(samples.length > 0 ? [''] : [])]
      output.write(`${[...lines, ...doneLines(event, next)].join('\n')}\n`)
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    progress.close()
  }
}
