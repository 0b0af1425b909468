/*
 * What `lowrank plan` says of a model beside what runs take: the peak of memory of their processes, the seconds of their steps, the files
 * that they leave. Each run is a process of its own; each plan is made just before it, since other work on the machine slows both.
 *
 *     npm run bench:plan -- --model DIR [--only lora,full] [--no-time] [--debug]
 */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { plan, type PlanConfigInput, type TrainConfigInput } from '../src/index.ts'
import { measureRun, type MeasuredRun } from './measured-run.ts'
import { modelFolder, runNode } from './python.ts'
import { flagValue, median } from './training-step.ts'

const train = fileURLToPath(new URL('../../examples/quickstart/train.jsonl', import.meta.url))

interface Case {
  readonly method: 'full' | 'lora' | 'qlora'
  readonly activations: 'keep' | 'recompute' | 'streamed'
}

const cases: readonly Case[] = [
  { method: 'lora', activations: 'keep' },
  { method: 'lora', activations: 'recompute' },
  { method: 'lora', activations: 'streamed' },
  { method: 'qlora', activations: 'keep' },
  { method: 'qlora', activations: 'recompute' },
  { method: 'full', activations: 'recompute' },
  { method: 'full', activations: 'keep' },
]

/** Packed, so that rows are long: with short ones there is little to keep. */
const shared = {
  train,
  packing: true,
  perDeviceTrainBatchSize: 4,
  gradientAccumulationSteps: 2,
  padToMultipleOf: 64,
  maxSteps: 3,
} as const satisfies Partial<TrainConfigInput>

/** Off by at most this share, or these bytes. */
const tolerated = { memory: 0.1, bytes: 50e6, time: 0.3 }

const args = process.argv.slice(2)
const run = flagValue(args, '--run')
const debug = args.includes('--debug')

if (run !== undefined) {
  console.log(JSON.stringify(await measureRun(JSON.parse(run) as TrainConfigInput, { debug })))
} else {
  const model = modelFolder(args)
  const only = flagValue(args, '--only')?.split(',')
  const self = fileURLToPath(import.meta.url)
  const work = await mkdtemp(join(tmpdir(), 'lowrank-plan-'))
  const off: string[] = []
  try {
    for (const { method, activations } of cases) {
      const name = `${method}, ${activations}`
      if (only !== undefined && !only.some((part) => `${method}-${activations}`.startsWith(part))) continue
      const options: PlanConfigInput = {
        model,
        ...shared,
        methods: [method],
        ram: '16GB',
        probe: !args.includes('--no-time'),
      }
      const planned = (await plan(options)).variants.find((one) => one.activations === activations)
      if (planned === undefined) throw new Error(`no plan for ${name}`)
      const outputDir = join(work, 'out')
      // Blocks stay on disk only where a bound asks for it: one that nothing else fits.
      const memory = activations === 'streamed' ? Math.ceil(planned.memory.expected) : '16GB'
      const placed = activations === 'streamed' ? 'auto' : activations
      const config: TrainConfigInput = {
        model,
        ...shared,
        method,
        activations: placed,
        memory,
        outputDir,
        saveStrategy: 'no',
      }
      const found = await runNode<MeasuredRun>(self, ['--run', JSON.stringify(config), ...(debug ? ['--debug'] : [])])
      const problems = await compare(planned, found, outputDir)
      if (debug) for (const { what, bytes } of planned.memory.items) console.log(`  ${what}: ${megabytes(bytes)}`)
      const step = median(found.stepSeconds.slice(1))
      const expected = planned.time?.stepSeconds
      console.log(
        `${basename(model)}, ${name}: planned ${megabytes(planned.memory.expected)}, peak ${megabytes(found.peakMemory)}, ` +
          `ratio ${(found.peakMemory / planned.memory.expected).toFixed(2)}` +
          (expected === undefined
            ? ''
            : `; step ${expected.toFixed(2)} s, ${step.toFixed(2)} s, ratio ${(step / expected).toFixed(2)}`) +
          (problems.length === 0 ? '' : `; ${problems.join(', ')}`),
      )
      if (problems.length > 0) off.push(name)
      await rm(outputDir, { recursive: true, force: true })
    }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  console.log(off.length === 0 ? 'all as planned' : `not as planned: ${off.join('; ')}`)
}

type Planned = Awaited<ReturnType<typeof plan>>['variants'][number]

/** What is not as planned. */
async function compare(planned: Planned, found: MeasuredRun, outputDir: string): Promise<string[]> {
  const problems: string[] = []
  const difference = Math.abs(found.peakMemory - planned.memory.expected)
  if (difference > Math.max(tolerated.bytes, tolerated.memory * planned.memory.expected)) problems.push('memory off')
  if (planned.trainableParameters !== found.trainableParameters) {
    problems.push(`${planned.trainableParameters} weights planned, ${found.trainableParameters} trained`)
  }
  for (const { name, bytes } of planned.artifact.files) {
    const size = (await readdir(outputDir)).includes(name) ? (await stat(join(outputDir, name))).size : 0
    if (size !== bytes) problems.push(`${name}: ${bytes} bytes planned, ${size} written`)
  }
  const step = median(found.stepSeconds.slice(1))
  const expected = planned.time?.stepSeconds
  if (expected !== undefined && Math.abs(step / expected - 1) > tolerated.time) problems.push('time off')
  return problems
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`
}
