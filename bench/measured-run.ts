import { finetune, type TrainConfigInput } from '../src/index.ts'

/** What a run was expected to take, and took: bytes and seconds. */
export interface MeasuredRun {
  readonly expected: number
  readonly peakMemory: number
  readonly activations: string
  readonly seconds: number
  /** Of each step. */
  readonly stepSeconds: readonly number[]
  readonly trainableParameters: number
}

/** Trains in the process that calls it, whose peak of memory is then that of the run. `debug`: says what it sees on the way. */
export async function measureRun(
  config: TrainConfigInput,
  { debug }: { readonly debug: boolean },
): Promise<MeasuredRun> {
  let result = { expected: 0, peakMemory: 0, activations: '', seconds: 0, trainableParameters: 0 }
  const stepSeconds: number[] = []
  for await (const event of finetune(config)) {
    if (event.type === 'plan') {
      const { activations, memory, trainableParameters } = event
      result = { ...result, expected: memory.expected, activations, trainableParameters }
      if (debug) for (const { what, bytes } of memory.items) console.error(`  ${what}: ${(bytes / 1e6).toFixed(0)} MB`)
    }
    if (event.type === 'step') stepSeconds.push(event.seconds)
    if (debug && event.type === 'step')
      console.error(`  step ${event.step}: ${(event.memory / 1e6).toFixed(0)} MB, ${event.seconds.toFixed(2)} s`)
    if (event.type === 'warning') console.error(event.message)
    if (event.type === 'done') result = { ...result, peakMemory: event.peakMemory, seconds: event.seconds }
  }
  return { ...result, stepSeconds }
}
