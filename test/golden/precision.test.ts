import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { type Precision, type Quantization, quantizationOf } from '../../src/config/index.ts'
import { argmax } from '../../src/util/vectors.ts'
import { openGeneration } from '../../src/session/generation.ts'
import { parseLines, quickstart } from '../e2e/support.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'
import { cases, writeModel } from './family-model.ts'

/*
 * How far what integers of 8 and 4 bits compute is from products in f32.
 */

const found: string[] = []
let largest = 0
afterAll(() =>
  console.info(
    `divergence from f32 in nats a token: ${found.join(', ')}, fast of the families ${largest.toExponential(1)} at most`,
  ),
)

interface Held {
  readonly model: string
  readonly precision?: Precision
  readonly quantization?: Quantization | undefined
  readonly adapter?: string | undefined
}

/** Logarithms of the probabilities of what follows each beginning of some texts. */
async function logprobs(
  { model, precision, quantization, adapter }: Held,
  texts: readonly Int32Array[],
): Promise<Float64Array[]> {
  const { decoder, config, adapter: load, close } = await openGeneration({ model, precision, quantization, threads: 1 })
  const own = adapter === undefined ? undefined : await load(adapter)
  const rows: Float64Array[] = []
  for (const ids of texts) {
    const logits = await decoder.run(decoder.newCache(), { ids, adapters: [own], logits: 'all' })
    for (let t = 0; t < ids.length; t++) {
      const row = Float64Array.from(logits!.subarray(t * config.vocabSize, (t + 1) * config.vocabSize))
      const sum = Math.log(row.reduce((total, one) => total + Math.exp(one), 0))
      rows.push(row.map((one) => one - sum))
    }
  }
  await close()
  return rows
}

/** Mean divergence of the second from the first, and how often both have the same likeliest token. */
function divergence(exact: readonly Float64Array[], other: readonly Float64Array[]): { mean: number; same: number } {
  let [sum, same] = [0, 0]
  exact.forEach((row, t) => {
    row.forEach((one, i) => (sum += Math.exp(one) * (one - other[t]![i]!)))
    if (argmax(Float32Array.from(row)) === argmax(Float32Array.from(other[t]!))) same++
  })
  return { mean: sum / exact.length, same: same / exact.length }
}

const bounds = { fast: { mean: 1.5e-3, same: 0.97 }, 'fast-4bit': { mean: 0.08, same: 0.85 } } as const

test.each(['fast', 'fast-4bit'] as const)('%s: a trained model', async (precision) => {
  const tokenizer = await loadTokenizer(quickstart)
  const file = await readFile(join(quickstart, '../valid.jsonl'), 'utf8')
  const records = parseLines<{ prompt: string; completion: string }>(file).slice(0, 3)
  const texts = await tokenizer.encode(records.map(({ prompt, completion }) => prompt + completion))
  tokenizer.close()
  const exact = await logprobs({ model: quickstart }, texts)
  const { mean, same } = divergence(exact, await logprobs({ model: quickstart, precision }, texts))
  found.push(`${precision} ${mean.toExponential(1)}`)
  expect(mean).toBeGreaterThan(1e-5)
  expect(mean).toBeLessThan(bounds[precision].mean)
  expect(same).toBeGreaterThan(bounds[precision].same)
  if (precision !== 'fast') return
  // Integers of LLM.int8 stay as they are: what is left is the rounding of activations.
  const quantization = quantizationOf({
    loadIn8bit: true,
    loadIn4bit: false,
    bnb4bitQuantType: 'nf4',
    bnb4bitUseDoubleQuant: true,
  })
  const int8 = await logprobs({ model: quickstart, quantization }, texts)
  const kept = divergence(int8, await logprobs({ model: quickstart, quantization, precision }, texts))
  found.push(`${precision} of int8 ${kept.mean.toExponential(1)}`)
  expect(kept.mean).toBeLessThan(bounds.fast.mean)
})

test.each(cases)('fast: %s', async (name) => {
  const model = await mkdtemp(join(tmpdir(), 'lowrank-precision-'))
  const { examples } = await writeModel(name, model)
  const texts = examples.map(({ ids }) => ids)
  for (const adapter of [undefined, join(model, 'adapter')]) {
    const exact = await logprobs({ model, adapter }, texts)
    const { mean } = divergence(exact, await logprobs({ model, adapter, precision: 'fast' }, texts))
    largest = Math.max(largest, mean)
    expect(mean).toBeGreaterThan(1e-9)
    expect(mean).toBeLessThan(1e-2)
  }
  await rm(model, { recursive: true })
})
