/*
 * Methods side by side: full fine-tuning, LoRA, QLoRA on a base in nf4, fp4 and 8 bits, each on the same examples, in the same order
 * (one seed) and for the same number of steps, in a process of its own. What differs is the method, and the learning rate, which is
 * the one users start from: 5e-5 for full fine-tuning (the default of transformers), 2e-4 for adapters (that of the QLoRA paper).
 *
 *     npm run bench:methods -- --model DIR [--steps 12] [--activations recompute] [--only lora,nf4]
 */
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { finetune, type TrainConfigInput } from '../src/index.ts'
import { realShapedExamples, toJsonl } from './data.ts'
import { modelFolder, runNode } from './python.ts'
import { countFlag, flagValue } from './training-step.ts'

interface Method {
  readonly title: string
  readonly options: Pick<TrainConfigInput, 'method' | 'loadIn8bit' | 'bnb4bitQuantType'>
  readonly learningRate: number
}

const methods: Readonly<Record<string, Method>> = {
  full: { title: 'full', options: { method: 'full' }, learningRate: 5e-5 },
  lora: { title: 'LoRA', options: { method: 'lora' }, learningRate: 2e-4 },
  nf4: { title: 'QLoRA nf4', options: { method: 'qlora', bnb4bitQuantType: 'nf4' }, learningRate: 2e-4 },
  fp4: { title: 'QLoRA fp4', options: { method: 'qlora', bnb4bitQuantType: 'fp4' }, learningRate: 2e-4 },
  int8: { title: 'QLoRA 8-bit', options: { method: 'qlora', loadIn8bit: true }, learningRate: 2e-4 },
}

interface RunResult {
  readonly lossBefore: number
  readonly lossAfter: number
  readonly trainSeconds: number
  readonly totalSeconds: number
  readonly peakMemory: number
  readonly trainableParameters: number
  /** Of the weights that the run wrote. */
  readonly artifactBytes: number
}

interface Settings {
  readonly model: string
  readonly work: string
  readonly steps: number
  readonly activations: 'keep' | 'recompute' | 'auto'
}

async function run(
  { options, learningRate }: Method,
  { model, work, steps, activations }: Settings,
): Promise<RunResult> {
  const outputDir = join(work, 'out')
  const start = performance.now()
  const evalLosses: number[] = []
  let [trainSeconds, peakMemory, trainableParameters] = [0, 0, 0]
  const events = finetune({
    ...options,
    learningRate,
    model,
    train: join(work, 'train.jsonl'),
    valid: join(work, 'valid.jsonl'),
    outputDir,
    // Of no use to full fine-tuning, which says so.
    r: 32,
    loraAlpha: 64,
    targetModules: 'all-linear',
    maxLength: 512,
    perDeviceTrainBatchSize: 4,
    perDeviceEvalBatchSize: 4,
    maxSteps: steps,
    seed: 1,
    evalOnStart: true,
    // Once, after the last step.
    evalStrategy: 'steps',
    evalSteps: steps,
    saveStrategy: 'no',
    activations,
  })
  for await (const event of events) {
    if (event.type === 'plan') trainableParameters = event.trainableParameters
    if (event.type === 'eval') evalLosses.push(event.loss)
    if (event.type === 'step') trainSeconds += event.seconds
    if (event.type === 'done') peakMemory = event.peakMemory
  }
  const totalSeconds = (performance.now() - start) / 1000
  const files = (await readdir(outputDir)).filter((name) => name.endsWith('.safetensors'))
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(outputDir, name))).size))
  const artifactBytes = sizes.reduce((total, size) => total + size, 0)
  const [lossBefore = NaN, lossAfter = NaN] = evalLosses
  await rm(outputDir, { recursive: true })
  return { lossBefore, lossAfter, trainSeconds, totalSeconds, peakMemory, trainableParameters, artifactBytes }
}

const header = [
  'method',
  'learning rate',
  'eval loss before',
  'after',
  'training',
  'in all',
  'peak memory',
  'trainable',
  'artifact',
]

function cells({ title, learningRate }: Method, result: RunResult): string[] {
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`
  return [
    title,
    learningRate.toExponential(),
    result.lossBefore.toFixed(4),
    result.lossAfter.toFixed(4),
    `${result.trainSeconds.toFixed(1)} s`,
    `${result.totalSeconds.toFixed(1)} s`,
    megabytes(result.peakMemory),
    result.trainableParameters.toLocaleString('en-US'),
    megabytes(result.artifactBytes),
  ]
}

/** A table in Markdown, its columns aligned. */
function table(lines: readonly (readonly string[])[]): string {
  const widths = header.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)))
  const row = (line: readonly string[]): string =>
    `| ${line.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`
  const [first = [], ...rest] = lines
  return [row(first), row(widths.map((width) => '-'.repeat(width))), ...rest.map(row)].join('\n')
}

function choice<T extends string>(flag: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === text)
  if (found !== undefined) return found
  console.error(`${flag}: found ${text}, expected one of ${allowed.join(', ')}`)
  process.exit(2)
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const steps = countFlag(args, '--steps', 12)
const activations = choice('--activations', flagValue(args, '--activations') ?? 'recompute', [
  'keep',
  'recompute',
  'auto',
])
const child = flagValue(args, '--work')

if (child !== undefined) {
  const method = methods[flagValue(args, '--only') ?? '']
  if (method !== undefined) console.log(JSON.stringify(await run(method, { model, work: child, steps, activations })))
} else {
  const names = Object.keys(methods)
  const wanted = flagValue(args, '--only')?.split(',') ?? names
  for (const name of wanted) choice('--only', name, names)
  const work = await mkdtemp(join(tmpdir(), 'lowrank-bench-'))
  try {
    await writeFile(join(work, 'train.jsonl'), toJsonl(realShapedExamples({ count: 100, seed: 1 })))
    await writeFile(join(work, 'valid.jsonl'), toJsonl(realShapedExamples({ count: 20, seed: 2 })))
    console.log(`${steps} steps of 4 examples, activations: ${activations}; 20 other examples to evaluate on\n`)
    const lines: string[][] = []
    for (const name of wanted) {
      const shared = ['--model', model, '--work', work, '--steps', String(steps), '--activations', activations]
      const result = await runNode<RunResult>(fileURLToPath(import.meta.url), [...shared, '--only', name])
      lines.push(cells(methods[name]!, result))
      console.error(`${lines.length} of ${wanted.length}: ${lines.at(-1)?.join('  ')}`)
    }
    console.log(table([header, ...lines]))
  } finally {
    await rm(work, { recursive: true })
  }
}
