/*
 * What a quantized base costs a step: QLoRA (nf4 with double quantization) against LoRA on the same base expanded to f32. Both are open in
 * one process and step in turn, so that what else the machine does hits both alike. Then the peak memory of a QLoRA run
 * through the public API, in a process of its own: Node.js, tokenizer and runtime included.
 *
 *     npm run bench:qlora -- --model DIR [--steps 15]
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { finetune } from '../src/index.ts'
import { toJsonl } from './data.ts'
import { modelFolder, runNode } from './python.ts'
import { countFlag, flagValue, length, median, openTrainingStep, rank, rows } from './training-step.ts'

interface Comparison {
  readonly loraSeconds: number
  readonly qloraSeconds: number
  /** Median over pairs of neighbouring steps of QLoRA's seconds by LoRA's. */
  readonly pairedRatio: number
}

interface MemoryResult {
  readonly peakMemory: number
  /** Positions and labels of the largest step. */
  readonly tokens: number
  readonly labelTokens: number
}

async function compare(model: string, activations: 'keep' | 'recompute', steps: number): Promise<Comparison> {
  const lora = await openTrainingStep({ model, activations, expandWeights: true })
  const quantization = { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 } as const
  const qlora = await openTrainingStep({ model, activations, expandWeights: false, quantization })
  const pairs: { readonly lora: number; readonly qlora: number }[] = []
  for (let i = -1; i < steps; i++) {
    // The order alternates, so that neither is always the one that comes after the other.
    let [first, second] = [0, 0]
    if (i % 2 === 0) [first, second] = [await lora.run(), await qlora.run()]
    else [second, first] = [await qlora.run(), await lora.run()]
    // The first pair warms up.
    if (i >= 0) pairs.push({ lora: first, qlora: second })
  }
  await lora.decoder.close()
  await qlora.decoder.close()
  return {
    loraSeconds: median(pairs.map((pair) => pair.lora)),
    qloraSeconds: median(pairs.map((pair) => pair.qlora)),
    pairedRatio: median(pairs.map((pair) => pair.qlora / pair.lora)),
  }
}

/** A run of a few steps on examples that are cut to `length` tokens each, about half of them labels. */
async function memory(model: string, steps: number): Promise<MemoryResult> {
  const work = await mkdtemp(join(tmpdir(), 'lowrank-bench-'))
  try {
    const words = (count: number): string => ' the'.repeat(count)
    const example = { prompt: words(length / 2), completion: words(length) }
    await writeFile(join(work, 'train.jsonl'), toJsonl(Array.from({ length: rows }, () => example)))
    const events = finetune({
      model,
      train: join(work, 'train.jsonl'),
      outputDir: join(work, 'adapter'),
      method: 'qlora',
      r: rank,
      targetModules: ['q_proj', 'v_proj'],
      maxLength: length,
      perDeviceTrainBatchSize: rows,
      maxSteps: steps,
      activations: 'recompute',
      saveStrategy: 'no',
    })
    let [peakMemory, tokens, labelTokens] = [0, 0, 0]
    for await (const event of events) {
      if (event.type === 'step') {
        tokens = Math.max(tokens, event.tokens)
        labelTokens = Math.max(labelTokens, event.labelTokens)
      }
      if (event.type === 'done') peakMemory = event.peakMemory
    }
    return { peakMemory, tokens, labelTokens }
  } finally {
    await rm(work, { recursive: true })
  }
}

async function report(model: string, steps: number): Promise<void> {
  const self = fileURLToPath(import.meta.url)
  const common = ['--model', model, '--steps', String(steps)]
  console.log(`${rows} x ${length} tokens, r ${rank} on q and v, medians of ${steps} steps of each in turn`)
  for (const activations of ['keep', 'recompute']) {
    const result = await runNode<Comparison>(self, [...common, '--run', activations])
    const { loraSeconds, qloraSeconds, pairedRatio } = result
    console.log(
      `${activations}: LoRA f32 ${loraSeconds.toFixed(3)} s, QLoRA nf4 ${qloraSeconds.toFixed(3)} s, ` +
        `ratio ${(qloraSeconds / loraSeconds).toFixed(3)}, median of paired ratios ${pairedRatio.toFixed(3)}`,
    )
  }
  const { peakMemory, tokens, labelTokens } = await runNode<MemoryResult>(self, [...common, '--run', 'memory'])
  console.log(
    `QLoRA, recompute, ${tokens} tokens with ${labelTokens} labels: peak ${(peakMemory / 1e6).toFixed(0)} MB of the whole process`,
  )
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const steps = countFlag(args, '--steps', 15)
const mode = flagValue(args, '--run')
if (mode === 'keep' || mode === 'recompute') console.log(JSON.stringify(await compare(model, mode, steps)))
else if (mode === 'memory') console.log(JSON.stringify(await memory(model, Math.min(steps, 3))))
else await report(model, steps)
