/*
 * A QLoRA optimizer step of a model with random weights, written straight in NF4: larger than memory, a Llama of 70 billion parameters
 * (36 GB) whose blocks stay on disk, or one of the shape of Llama 3.1 8B or Qwen 2.5 7B. Prints peak memory, bytes read and seconds of the step under each memory bound.
 *
 *     npm run bench:large -- [--shape llama-70b|llama-3.1-8b|qwen2.5-7b] [--dir DIR] [--memory 24GB,12GB] [--layers 80] [--tokens 64] [--micro-batches 2]
 *
 * The folder (by default in the system's folder for temporary files) needs 38 GB free; what was written is removed at the end.
 */
import { mkdtemp, rm, statfs, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { finetune } from '../src/index.ts'
import { formatSize } from '../src/util/format.ts'
import { modelBytes, writeRandomModel, type ModelShape } from '../scripts/random-nf4.ts'
import { runNode } from './python.ts'
import { countFlag, flagValue } from './training-step.ts'

interface Step {
  readonly expected: number
  readonly peakMemory: number
  readonly bytesRead: number
  readonly seconds: number
  readonly loss: number
  readonly blocks: string
}

async function step(work: string, memory: string, tokens: number, microBatches: number): Promise<Step> {
  const events = finetune({
    model: join(work, 'model'),
    train: join(work, 'train.jsonl'),
    outputDir: join(work, 'out'),
    method: 'qlora',
    memory,
    r: 8,
    loraAlpha: 16,
    maxLength: tokens,
    perDeviceTrainBatchSize: 1,
    gradientAccumulationSteps: microBatches,
    maxSteps: 1,
    saveStrategy: 'no',
  })
  let result = { expected: 0, peakMemory: 0, bytesRead: 0, seconds: 0, loss: 0, blocks: 'in memory' }
  for await (const event of events) {
    if (event.type === 'plan') {
      result = { ...result, expected: event.memory.expected, blocks: event.streamed ? 'on disk' : 'in memory' }
    }
    if (event.type === 'step') {
      const { bytesRead, seconds, loss } = event
      result = { ...result, bytesRead, seconds, loss }
    }
    if (event.type === 'done') result = { ...result, peakMemory: event.peakMemory }
  }
  return result
}

const shapes: Readonly<Record<string, ModelShape>> = {
  'llama-70b': { layers: 80, hidden: 8192, ffn: 28672, heads: 64, kvHeads: 8, vocabulary: 32000 },
  'llama-3.1-8b': { layers: 32, hidden: 4096, ffn: 14336, heads: 32, kvHeads: 8, vocabulary: 128256 },
  'qwen2.5-7b': { family: 'qwen2', layers: 28, hidden: 3584, ffn: 18944, heads: 28, kvHeads: 4, vocabulary: 152064 },
}

const args = process.argv.slice(2)
const self = fileURLToPath(import.meta.url)
const child = flagValue(args, '--work')
const tokens = countFlag(args, '--tokens', 64)
const microBatches = countFlag(args, '--micro-batches', 2)
const bounds = (flagValue(args, '--memory') ?? '24GB,12GB').split(',')

if (child !== undefined) {
  console.log(JSON.stringify(await step(child, bounds[0] ?? '', tokens, microBatches)))
} else {
  const named = shapes[flagValue(args, '--shape') ?? 'llama-70b']
  if (named === undefined) throw new Error(`--shape is one of ${Object.keys(shapes).join(', ')}`)
  const shape: ModelShape = { ...named, layers: countFlag(args, '--layers', named.layers) }
  const parent = flagValue(args, '--dir') ?? tmpdir()
  const bytes = modelBytes(shape)
  const { bavail, bsize } = await statfs(parent)
  if (bytes + 2e9 > bavail * bsize) {
    console.error(
      `${parent} has ${formatSize(bavail * bsize)} free; the model takes ${formatSize(bytes)}, and 2 GB should stay`,
    )
    process.exit(1)
  }
  const work = await mkdtemp(join(parent, 'lowrank-large-'))
  const remove = (): Promise<void> => rm(work, { recursive: true, force: true })
  process.once('SIGINT', () => void remove().then(() => process.exit(130)))
  try {
    const start = performance.now()
    const tokenizer = fileURLToPath(new URL('../../examples/quickstart/model', import.meta.url))
    await writeRandomModel(join(work, 'model'), shape, tokenizer)
    console.log(`wrote ${formatSize(bytes)} in ${((performance.now() - start) / 1000).toFixed(0)} s`)
    // Cut to the maximal length: every micro-batch has as many tokens.
    const example = JSON.stringify({ prompt: 'a', completion: ' b'.repeat(4 * tokens) })
    await writeFile(join(work, 'train.jsonl'), `${example}\n`.repeat(microBatches))
    for (const memory of bounds) {
      const common = ['--tokens', String(tokens), '--micro-batches', String(microBatches)]
      const result = await runNode<Step>(self, ['--work', work, '--memory', memory, ...common])
      console.log(
        `--memory ${memory}: ${result.seconds.toFixed(0)} s a step, blocks ${result.blocks}, ${formatSize(result.bytesRead)} read, ` +
          `peak ${formatSize(result.peakMemory)} (${formatSize(result.expected)} expected), loss ${result.loss.toFixed(3)}`,
      )
    }
  } finally {
    await remove()
  }
}
