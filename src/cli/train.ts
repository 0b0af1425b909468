import { readTrainConfig, type TrainConfigInput } from '../config/index.ts'
import type { TrainEvent } from '../train/events.ts'
import { widthOf, type Invocation } from './io.ts'
import { openProgress } from './progress.ts'
import { doneLines, sampleLines } from './render.ts'

/** `lowrank train`: draws the events of a run, then its samples and summary. */
export async function train({ sources, configFile, json, io, signal, loadApi }: Invocation): Promise<void> {
  const config = readTrainConfig(sources)
  const { finetune } = await loadApi()
  const progress = openProgress(io.stderr)
  const onAbort = (): void => progress.line('stopping after this step; Ctrl-C again quits at once')
  signal.addEventListener('abort', onAbort, { once: true })
  const samples: Extract<TrainEvent, { type: 'sample' }>[] = []
  try {
    for await (const event of finetune(config, { signal, configFile })) {
      if (json) io.stdout.write(`${JSON.stringify(event)}\n`)
      if (event.type === 'sample') samples.push(event)
      if (event.type !== 'done') {
        progress.event(event)
        continue
      }
      progress.close()
      // Standard output belongs to the JSON lines where they are asked for.
      const output = json ? io.stderr : io.stdout
      const lines = [...sampleLines(samples, widthOf(output)), ...(samples.length > 0 ? [''] : [])]
      output.write(`${[...lines, ...doneLines(event, nextCommand(config))].join('\n')}\n`)
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    progress.close()
  }
}

/** How to measure what was trained, on the validation data if there is some. How the base was held says the run.json beside the adapter. */
function nextCommand(config: TrainConfigInput): string | undefined {
  if (config.valid === undefined) return undefined
  const model =
    config.method === 'full'
      ? `--model ${quote(config.outputDir)}`
      : `--model ${quote(config.model)} --adapter ${quote(config.outputDir)}`
  return `npx lowrank eval ${model} --data ${quote(config.valid)}`
}

function quote(path: string): string {
  return /^[\w@%+:,./~-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
