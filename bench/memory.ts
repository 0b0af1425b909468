/*
 * What the memory plan expects against the peak that the process has, for shapes of models and data that differ: long rows, wide and deep
 * models, a large vocabulary, many examples. Each run is a process of its own, on random weights written for it.
 *
 *     npm run bench:memory -- [--only long,vocab] [--debug]
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { TrainConfigInput } from '../src/index.ts'
import { writeRandomModel, type ModelShape } from '../scripts/random-nf4.ts'
import { stream, uniform } from '../src/util/random.ts'
import { measureRun, type MeasuredRun } from './measured-run.ts'
import { runNode } from './python.ts'
import { flagValue } from './training-step.ts'

interface Shape {
  readonly name: string
  readonly model: keyof typeof models
  readonly data: keyof typeof datasets
  readonly options: Partial<TrainConfigInput>
}

const small = { layers: 4, hidden: 192, ffn: 512, heads: 6, kvHeads: 2, vocabulary: 2496 }
const models = {
  small,
  wide: { ...small, layers: 2, hidden: 1024, ffn: 4096, heads: 16, kvHeads: 4 },
  deep: { ...small, layers: 40 },
  vocab: { ...small, layers: 2, hidden: 128, ffn: 256, heads: 4, vocabulary: 262_144 },
  packed: { ...small, layers: 8, hidden: 1024, ffn: 4096, heads: 16, kvHeads: 4 },
} as const satisfies Readonly<Record<string, ModelShape>>

/** Examples, their tokens from and to, half of them labels. */
const datasets = {
  long: [2, 4096, 4096],
  longer: [1, 8192, 8192],
  plain: [16, 256, 256],
  half: [16, 512, 512],
  mixed: [160, 4, 1024],
  many: [120_000, 8, 40],
} as const

const keep = { activations: 'keep' } as const
const recompute = { activations: 'recompute' } as const
const full = { method: 'full', ...recompute } as const

const shapes: readonly Shape[] = [
  { name: 'long, keep', model: 'small', data: 'long', options: { ...keep, perDeviceTrainBatchSize: 1 } },
  { name: 'long, recompute', model: 'small', data: 'long', options: { ...recompute, perDeviceTrainBatchSize: 1 } },
  { name: 'longer, recompute', model: 'small', data: 'longer', options: { ...recompute, maxSteps: 1 } },
  { name: 'long, bound', model: 'small', data: 'long', options: { memory: '1GB', perDeviceTrainBatchSize: 1 } },
  { name: 'wide, keep', model: 'wide', data: 'plain', options: keep },
  { name: 'wide, recompute', model: 'wide', data: 'plain', options: recompute },
  { name: 'wide, qlora, keep', model: 'wide', data: 'plain', options: { ...keep, method: 'qlora' } },
  { name: 'wide, qlora, recompute', model: 'wide', data: 'plain', options: { ...recompute, method: 'qlora' } },
  { name: 'wide, full', model: 'wide', data: 'plain', options: full },
  { name: 'wide, full, 8-bit', model: 'wide', data: 'plain', options: { ...full, optim: 'adamw-8bit' } },
  { name: 'packed, on disk', model: 'packed', data: 'plain', options: { memory: '600MB', method: 'qlora' } },
  { name: 'deep, keep', model: 'deep', data: 'plain', options: keep },
  { name: 'deep, recompute', model: 'deep', data: 'plain', options: recompute },
  { name: 'vocab, keep', model: 'vocab', data: 'half', options: keep },
  { name: 'vocab, recompute', model: 'vocab', data: 'half', options: recompute },
  { name: 'vocab, bound', model: 'vocab', data: 'half', options: { memory: '600MB' } },
  { name: 'vocab, full', model: 'vocab', data: 'half', options: full },
  { name: 'mixed, keep', model: 'small', data: 'mixed', options: { ...keep, maxSteps: 20 } },
  { name: 'mixed, recompute', model: 'small', data: 'mixed', options: { ...recompute, maxSteps: 20 } },
  { name: 'many examples', model: 'small', data: 'many', options: recompute },
]

function measure({ options, ...shape }: Shape, work: string, debug: boolean): Promise<MeasuredRun> {
  const file = join(work, `${shape.data}.jsonl`)
  const config = {
    model: join(work, shape.model),
    train: file,
    ...(shape.data === 'many' ? { valid: file, perDeviceEvalBatchSize: 64 } : {}),
    outputDir: join(work, 'out'),
    r: 8,
    maxLength: 8192,
    perDeviceTrainBatchSize: 4,
    maxSteps: 3,
    evalStrategy: 'no',
    saveStrategy: 'no',
    ...options,
  } as const
  return measureRun(config, { debug })
}

/** Rows of about as many tokens as they are asked to have: ` customer` is one. */
function textOf([count, from, to]: readonly [number, number, number]): string {
  const draws = uniform(stream(1, 'lengths'), count)
  const rows = Array.from(draws, (draw) => {
    const tokens = Math.round(from + draw * (to - from))
    const words = (n: number): string => ' customer'.repeat(n)
    return `${JSON.stringify({ prompt: words(tokens >> 1), completion: words(tokens - (tokens >> 1) - 1) })}\n`
  })
  return rows.join('')
}

const tokenizer = fileURLToPath(new URL('../../examples/quickstart/model', import.meta.url))

async function prepare(work: string, { model, data }: Shape): Promise<void> {
  const stored = {
    storage: model === 'packed' ? 'nf4' : model === 'small' || model === 'deep' ? 'F32' : 'BF16',
  } as const
  await writeRandomModel(
    join(work, model),
    { ...models[model], tied: model === 'vocab', positions: 8192 },
    tokenizer,
    stored,
  )
  await writeFile(join(work, `${data}.jsonl`), textOf(datasets[data]))
}

const args = process.argv.slice(2)
const child = flagValue(args, '--work')
const debug = args.includes('--debug')
if (child !== undefined) {
  const shape = shapes.find(({ name }) => name === flagValue(args, '--shape'))
  if (shape !== undefined) console.log(JSON.stringify(await measure(shape, child, debug)))
} else {
  const only = flagValue(args, '--only')?.split(',')
  const work = await mkdtemp(join(tmpdir(), 'lowrank-memory-'))
  const off: string[] = []
  try {
    for (const shape of shapes) {
      if (only !== undefined && !only.some((part) => shape.name.replaceAll(', ', '-').startsWith(part))) continue
      await prepare(work, shape)
      const self = fileURLToPath(import.meta.url)
      const flags = ['--work', work, '--shape', shape.name, ...(debug ? ['--debug'] : [])]
      const { expected, peakMemory, activations, seconds } = await runNode<MeasuredRun>(self, flags)
      const ratio = peakMemory / expected
      if (Math.abs(ratio - 1) > 0.1) off.push(shape.name)
      const [planned, peak] = [expected, peakMemory].map((bytes) => `${(bytes / 1e6).toFixed(0)} MB`)
      console.log(
        `${shape.name}: planned ${planned}, peak ${peak}, ratio ${ratio.toFixed(2)} (${activations}, ${seconds.toFixed(0)} s)`,
      )
      await rm(join(work, 'out'), { recursive: true, force: true })
    }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  console.log(off.length === 0 ? 'all within 10 %' : `off by more than 10 %: ${off.join('; ')}`)
}
