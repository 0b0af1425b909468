/*
 * Time and memory of one training step (forward and backward of 4 x 256 tokens, half of them labels, LoRA r 32 on q and v),
 * as a share of what the machine's matrix products allow, and against PEFT where Python is present.
 *
 *     npm run bench:step -- --model DIR [--all] [--only f32,int8] [--rounds 1] [--no-python]
 *     npm run bench:step -- --shape qwen2.5-0.5b --all
 *
 * By default with activations kept and recomputed; `--all`: kept, with bases in f32, bf16, 8 bits and nf4, and products with them at `highest`
 * and at `high`. `--shape` has random weights. Each is a process of its own, and where there are several rounds the best counts.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { defaultThreads, peakMemory } from '../src/engine/machine.ts'
import { integerProductsAreExact } from '../src/engine/product-probe.ts'
import { openProductRate } from '../src/engine/product-rate.ts'
import { linearSpecs } from '../src/model/weight-specs.ts'
import type { OpenDecoder, OpenOptions } from '../src/session/decoder.ts'
import { percent } from '../src/util/format.ts'
import { findPython, modelFolder, runNode, runPythonFor } from './python.ts'
import { countFlag, flagValue, length, median, openTrainingStep, rank, rows } from './training-step.ts'

interface StepResult {
  readonly seconds: number
  /** What its products take at the limit, as a share of it. */
  readonly share: number
  /** The limit. */
  readonly gigaflops: number
  readonly peakMemory: number
}

const bases = ['f32', 'bf16', 'int8', 'nf4'] as const

/** What is measured: `keep` or `recompute`, how the base is held, what products with it are computed in. */
interface Variant {
  readonly activations: 'keep' | 'recompute'
  readonly base: (typeof bases)[number]
  readonly matmulPrecision: 'highest' | 'high'
}

const plain: readonly Variant[] = [
  { activations: 'keep', base: 'f32', matmulPrecision: 'highest' },
  { activations: 'recompute', base: 'bf16', matmulPrecision: 'highest' },
]

/** Products with weights in 4 bits have no other form. */
const all: readonly Variant[] = bases.flatMap((base) =>
  (['highest', 'high'] as const).flatMap((matmulPrecision): Variant[] => {
    return base === 'nf4' && matmulPrecision === 'high' ? [] : [{ activations: 'keep', base, matmulPrecision }]
  }),
)

const quantizations: Readonly<Record<Variant['base'], OpenOptions['quantization']>> = {
  f32: undefined,
  bf16: undefined,
  int8: { kind: '8bit' },
  nf4: { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 },
}

/** The shapes of a model, of which the weights do not matter: what config.json says. */
const shapes: Readonly<Record<string, object>> = {
  'qwen2.5-0.5b': {
    architectures: ['Qwen2ForCausalLM'],
    model_type: 'qwen2',
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    vocab_size: 151936,
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
    tie_word_embeddings: true,
    hidden_act: 'silu',
    initializer_range: 0.02,
    torch_dtype: 'bfloat16',
  },
}

/** Floating point operations of the products that a step cannot do without; recomputed ones do not count. */
function neededFlops({ config }: OpenDecoder): number {
  const tokens = rows * length
  const linears = linearSpecs(config)
  const frozen = linears.reduce(
    (total, { inFeatures, outFeatures }) => total + 2 * 2 * tokens * inFeatures * outFeatures,
    0,
  )
  // Past its attention, the last block is needed at the positions that predict a label only, which are half of them.
  const spared = linears
    .filter(({ module }) => !/[qkv]_proj$/.test(module))
    .reduce((total, { inFeatures, outFeatures }) => total + 2 * 2 * (tokens / 2) * inFeatures * outFeatures, 0)
  const adapters = linears
    .filter(({ module }) => /[qv]_proj$/.test(module))
    .reduce((total, { inFeatures, outFeatures }) => total + 3 * 2 * tokens * rank * (inFeatures + outFeatures), 0)
  // Scores and mix forward; each of the two has two products backward.
  const attention = 3 * 2 * 2 * rows * config.numAttentionHeads * length * length * config.headDim
  const head = 2 * 2 * (tokens / 2) * config.hiddenSize * config.vocabSize
  return config.numHiddenLayers * (frozen + adapters + attention) - spared + head
}

interface Asked {
  readonly model: string
  readonly init: 'pretrained' | 'random'
}

async function measure(asked: Asked, variant: Variant, steps: number): Promise<StepResult> {
  const { base, ...how } = variant
  const quantization = quantizations[base]
  const { decoder, run } = await openTrainingStep({ ...asked, ...how, expandWeights: base !== 'bf16', quantization })
  for (let step = 0; step < 2; step++) await run()
  const peak = peakMemory()
  const { config, threads } = decoder
  const rate = openProductRate(linearSpecs(config), { rows: rows * length, threads })
  const flops = neededFlops(decoder)
  // Where a machine is shared its limit changes from one second to the next: a step is compared with those right before and after it.
  const rates = [await rate.measure()]
  const times: number[] = []
  for (let step = 0; step < steps; step++) {
    times.push(await run())
    rates.push(await rate.measure())
  }
  await rate.close()
  await decoder.close()
  const shares = times.map((seconds, step) => (2 * flops) / (rates[step]! + rates[step + 1]!) / seconds)
  return { seconds: median(times), share: median(shares), gigaflops: median(rates) / 1e9, peakMemory: peak }
}

/** Products in bfloat16 take minutes where a processor has no instructions for them. */
const mostSeconds = 240

const args = process.argv.slice(2)

async function report(asked: Asked): Promise<void> {
  const self = fileURLToPath(import.meta.url)
  const only = flagValue(args, '--only')?.split(',')
  const exact = await integerProductsAreExact(defaultThreads())
  if (!exact) console.log('this processor has no fast exact products of integers: at high, others take their place')
  const variants = args.includes('--all') ? all : plain
  const wanted = variants.filter(({ base }) => only === undefined || only.includes(base))
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`
  const found = new Map<Variant, StepResult>()
  for (let round = 0; round < countFlag(args, '--rounds', 1); round++) {
    for (const variant of wanted) {
      const flags = ['--folder', asked.model, '--init', asked.init]
      const result = await runNode<StepResult>(self, [...flags, '--run', JSON.stringify(variant)])
      if (result.seconds < (found.get(variant)?.seconds ?? Infinity)) found.set(variant, result)
    }
  }
  const first = found.get(wanted[0]!)!
  for (const [{ activations, base, matmulPrecision }, result] of found) {
    console.log(
      `${activations}, base ${base}, ${matmulPrecision}: ${result.seconds.toFixed(2)} s a step, ${(first.seconds / result.seconds).toFixed(2)} x as fast as the first, ` +
        `${percent(result.share, 0)} of the limit in f32 (${result.gigaflops.toFixed(0)} GFLOP/s), peak ${gigabytes(result.peakMemory)}`,
    )
  }
  const python = args.includes('--no-python') ? undefined : await findPython()
  if (python === undefined) return
  const script = fileURLToPath(new URL('../../bench/peft_step.py', import.meta.url))
  for (const dtype of ['float32', 'bfloat16']) {
    const flags = ['--model', asked.model, '--dtype', dtype, '--threads', String(defaultThreads())]
    const peft = await runPythonFor<{ seconds: number; peakMemory: number }>(mostSeconds, python, script, flags)
    if (peft === undefined) {
      console.log(`PEFT ${dtype}: not done after ${mostSeconds} s`)
      continue
    }
    console.log(
      `PEFT ${dtype}: ${peft.seconds.toFixed(2)} s a step, peak ${gigabytes(peft.peakMemory)}; ` +
        `the first is ${(peft.seconds / first.seconds).toFixed(2)} x as fast`,
    )
  }
}

const run = flagValue(args, '--run')
const shape = flagValue(args, '--shape')
if (run !== undefined) {
  const asked = { model: flagValue(args, '--folder') ?? '', init: flagValue(args, '--init') as Asked['init'] }
  console.log(JSON.stringify(await measure(asked, JSON.parse(run) as Variant, 5)))
} else if (shape === undefined) await report({ model: modelFolder(args), init: 'pretrained' })
else {
  const config = shapes[shape]
  if (config === undefined) throw new Error(`--shape is one of ${Object.keys(shapes).join(', ')}`)
  const folder = await mkdtemp(join(tmpdir(), 'lowrank-step-'))
  try {
    await writeFile(join(folder, 'config.json'), JSON.stringify(config))
    await report({ model: folder, init: 'random' })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
