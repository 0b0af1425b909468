/*
 * Greedy generation here and in transformers: 20 prompts, 64 tokens each, bare and with a random adapter that PEFT has written, in f32 and,
 * on the weights that they stand for, nf4 and int8.
 *
 *     npm run parity:generate -- --model DIR [--short] [--kinds f32,nf4,int8]
 *
 * Each step is computed here after the tokens of transformers: alone and in a batch of all prompts, with a cache, and (each eighth step)
 * without. Compared are all logits and the token that has the largest. Where the two largest of transformers differ by less than 1e-3,
 * another token is a tie, which is counted and named, and no mismatch. At the end stands what integers of 8 and 4 bits change. Without
 * Python (torch, transformers, peft) it says so and passes.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findPython, modelFolder, runPython } from '../../bench/python.ts'
import { type Precision, type Quantization, quantizationOf } from '../../src/config/index.ts'
import type { LoadedAdapter } from '../../src/engine/cached/adapters.ts'
import { writeSafetensors } from '../../src/formats/safetensors.ts'
import { argmax } from '../../src/util/vectors.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { quantizedWeights } from '../../src/model/sources/quantized.ts'
import { openDecoder } from '../../src/session/decoder.ts'
import { type Generation, openGeneration } from '../../src/session/generation.ts'
import { widened } from '../../src/storage/formats.ts'
import { tokenizePrompts } from '../../src/text/pairs.ts'
import { loadTokenizer } from '../../src/text/tokenizer.ts'

const texts = [
  'The capital of France is',
  'Once upon a time, in a village by the sea,',
  'Write a haiku about autumn leaves.',
  'def fibonacci(n):\n    """Returns the nth number."""\n',
  'Q: What is 17 times 6?\nA:',
  'The three laws of thermodynamics state that',
  'Dear Sir or Madam,\n\nI am writing to complain about',
  'List five fruits that are red:\n1.',
  'In 1969, Neil Armstrong',
  'SELECT name, COUNT(*) FROM orders WHERE',
  'Die Hauptstadt von Deutschland ist',
  'Il était une fois une princesse qui',
  'La receta de la tortilla española lleva',
  '日本の首都は',
  'Москва - это',
  '# Installation\n\nTo install the package, run\n\n```bash\n',
  '{"name": "Alice", "age": 31, "city":',
  'Water boils at 100 degrees Celsius because the pressure of its vapour then equals that of the air around it. On a high mountain, where the air is thinner, water therefore boils',
  'A',
  'User: My printer does not print any more. The red light is on, and I have changed the paper twice.\nAssistant:',
]

const kinds: Readonly<Record<string, Quantization | undefined>> = {
  f32: undefined,
  nf4: quantizationOf({ loadIn4bit: true, loadIn8bit: false, bnb4bitQuantType: 'nf4', bnb4bitUseDoubleQuant: true }),
  int8: quantizationOf({ loadIn4bit: false, loadIn8bit: true, bnb4bitQuantType: 'nf4', bnb4bitUseDoubleQuant: true }),
}

const limit = 1e-3
const script = fileURLToPath(new URL('../../../test/parity/generate.py', import.meta.url))

/** What transformers made of a prompt. */
class Reference {
  readonly ids: Int32Array
  readonly tokens: readonly number[]
  readonly #file: number

  constructor(ids: Int32Array, tokens: readonly number[], path: string) {
    this.ids = ids
    this.tokens = tokens
    this.#file = openSync(path, 'r')
  }

  /** The logits that a token was taken from. */
  logits(step: number, vocabulary: number): Float32Array {
    const values = new Float32Array(vocabulary)
    const read = readSync(this.#file, new Uint8Array(values.buffer), 0, 4 * vocabulary, 4 * vocabulary * step)
    if (read !== 4 * vocabulary) throw new Error(`the logits of step ${step} are missing`)
    return values
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** What one way of computing has in common with transformers. */
class Tally {
  steps = 0
  mismatches = 0
  largest = 0
  readonly ties: string[] = []

  add(found: Float32Array, reference: Reference, step: number, prompt: number): void {
    const expected = reference.logits(step, found.length)
    for (let i = 0; i < found.length; i++) this.largest = Math.max(this.largest, Math.abs(found[i]! - expected[i]!))
    if (found.some(Number.isNaN)) this.largest = NaN
    this.steps++
    const [own, theirs] = [argmax(found), reference.tokens[step]!]
    if (own === theirs) return
    if (expected[theirs]! - expected[own]! < limit)
      this.ties.push(`prompt ${prompt + 1}, step ${step + 1}: ${own} for ${theirs}`)
    else this.mismatches++
  }

  get passed(): boolean {
    return this.mismatches === 0 && this.largest < limit
  }
}

async function alone(
  { decoder }: Generation,
  adapter: LoadedAdapter | undefined,
  references: readonly Reference[],
): Promise<Tally> {
  const tally = new Tally()
  for (const [prompt, reference] of references.entries()) {
    const cache = decoder.newCache()
    let ids = reference.ids
    for (const [step, token] of reference.tokens.entries()) {
      const logits = await decoder.run(cache, { ids, adapters: [adapter], logits: 'last' })
      tally.add(logits!, reference, step, prompt)
      ids = Int32Array.of(token)
    }
  }
  return tally
}

/** All prompts in one batch. */
async function batched(
  { decoder, config }: Generation,
  adapter: LoadedAdapter | undefined,
  references: readonly Reference[],
): Promise<Tally> {
  const tally = new Tally()
  const all = decoder.newCache(0)
  for (const [prompt, reference] of references.entries()) {
    const cache = decoder.newCache()
    const logits = await decoder.run(cache, { ids: reference.ids, adapters: [adapter], logits: 'last' })
    tally.add(logits!, reference, 0, prompt)
    all.join(cache)
  }
  const adapters = references.map(() => adapter)
  const width = config.vocabSize
  for (let step = 1; step < references[0]!.tokens.length; step++) {
    const ids = Int32Array.from(references, ({ tokens }) => tokens[step - 1]!)
    const logits = await decoder.run(all, { ids, adapters, logits: 'last' })
    references.forEach((reference, row) =>
      tally.add(logits!.subarray(row * width, (row + 1) * width), reference, step, row),
    )
  }
  return tally
}

async function uncached(options: Parameters<typeof openDecoder>[0], references: readonly Reference[]): Promise<Tally> {
  const tally = new Tally()
  const { pipeline, close } = await openDecoder(options)
  for (const [prompt, reference] of references.entries()) {
    for (let step = 0; step < reference.tokens.length; step += 8) {
      const ids = Int32Array.from([...reference.ids, ...reference.tokens.slice(0, step)])
      tally.add(await pipeline.nextLogits(ids), reference, step, prompt)
    }
  }
  await close()
  return tally
}

/** Mean divergence of the probabilities of transformers from those found, in nats a token, and how often the likeliest token is the same. */
async function divergence(
  generation: Generation,
  references: readonly Reference[],
): Promise<{ readonly mean: number; readonly same: number }> {
  const { decoder, config } = generation
  let [sum, same, count] = [0, 0, 0]
  for (const reference of references) {
    const ids = Int32Array.from([...reference.ids, ...reference.tokens.slice(0, -1)])
    const logits = await decoder.run(decoder.newCache(), { ids, adapters: [undefined], logits: 'all' })
    for (const [step, token] of reference.tokens.entries()) {
      const at = (reference.ids.length - 1 + step) * config.vocabSize
      const found = logits!.subarray(at, at + config.vocabSize)
      const expected = reference.logits(step, config.vocabSize)
      const [own, theirs] = [normalizer(found), normalizer(expected)]
      for (let i = 0; i < expected.length; i++)
        sum += Math.exp(expected[i]! - theirs) * (expected[i]! - theirs - (found[i]! - own))
      if (argmax(found) === token) same++
      count++
    }
  }
  return { mean: sum / count, same: same / count }
}

/** The logarithm of the sum of the exponentials. */
function normalizer(logits: Float32Array): number {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity)
  return most + Math.log(logits.reduce((total, one) => total + Math.exp(one - most), 0))
}

/** The model with the weights that its quantized ones stand for, for transformers. */
async function writeDequantized(model: string, quantization: Quantization, folder: string): Promise<void> {
  await mkdir(folder)
  await cp(join(model, 'config.json'), join(folder, 'config.json'))
  const base = await openWeights(model)
  const source = quantizedWeights(base, quantization, () => false)
  const tensors = source.specs.map(({ name, shape }) => ({
    name: source.storedName(name),
    dtype: 'F32' as const,
    shape,
    data: async () => {
      const { data } = widened(await source.load(name))
      return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
    },
  }))
  await writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' })
  await base.close()
}

function report(title: string, tally: Tally): void {
  const { steps, mismatches, largest, ties, passed } = tally
  const figures = `${steps} tokens, ${mismatches} differ, ${ties.length} ties; logits differ by ${largest.toExponential(1)} at most`
  console.log(`${passed ? 'ok  ' : 'FAIL'} ${title.padEnd(34)} ${figures}`)
  for (const tie of ties) console.log(`     tie: ${tie}`)
  if (!passed) process.exitCode = 1
}

interface Setup {
  readonly python: string
  readonly model: string
  readonly work: string
  readonly ids: readonly Int32Array[]
  readonly tokens: number
}

async function compare(
  { python, model, work, ids, tokens }: Setup,
  kind: string,
  adapterFolder: string | undefined,
): Promise<void> {
  const quantization = kinds[kind]
  const title = `${kind}${adapterFolder === undefined ? '' : ', adapter'}`
  const dequantized = join(work, kind)
  if (quantization !== undefined && adapterFolder === undefined)
    await writeDequantized(model, quantization, dequantized)
  const theirs = quantization === undefined ? model : dequantized
  const given = ['--prompts', join(work, 'prompts.json'), '--tokens', String(tokens), '--output', work]
  const made = await runPython<{ alone: number[][]; batched: number[][] }>(python, script, [
    'run',
    '--model',
    theirs,
    ...given,
    ...(adapterFolder === undefined ? [] : ['--adapter', adapterFolder]),
  ])
  const references = ids.map((prompt, i) => new Reference(prompt, made.alone[i]!, join(work, `${i}.f32`)))
  const padded = made.batched.filter((row, i) => row.join() === made.alone[i]!.join()).length
  console.log(`     ${title}: of ${ids.length} texts transformers makes ${padded} alike alone and in a padded batch`)
  const generation = await openGeneration({ model, quantization })
  const adapter = adapterFolder === undefined ? undefined : await generation.adapter(adapterFolder)
  report(`${title}: alone, with a cache`, await alone(generation, adapter, references))
  report(`${title}: in a batch, with a cache`, await batched(generation, adapter, references))
  await generation.close()
  report(`${title}: without a cache`, await uncached({ model, adapter: adapterFolder, quantization }, references))
  if (kind === 'f32' && adapterFolder === undefined) await compareFast(model, references)
  for (const reference of references) reference.close()
}

async function compareFast(model: string, references: readonly Reference[]): Promise<void> {
  const forms: readonly Precision[] = ['exact', 'fast', 'fast-4bit']
  for (const precision of forms) {
    const generation = await openGeneration({ model, precision })
    const { mean, same } = await divergence(generation, references)
    await generation.close()
    console.log(
      `     ${precision.padEnd(10)} divergence ${mean.toExponential(2)} nats a token, likeliest token the same ${(100 * same).toFixed(1)} %`,
    )
  }
}

async function main(python: string, args: readonly string[]): Promise<void> {
  const model = modelFolder(args)
  const short = args.includes('--short')
  const asked = args.includes('--kinds') ? (args[args.indexOf('--kinds') + 1] ?? '').split(',') : Object.keys(kinds)
  const unknown = asked.find((kind) => !Object.hasOwn(kinds, kind))
  if (unknown !== undefined) throw new Error(`--kinds ${unknown}: there are ${Object.keys(kinds).join(', ')}`)
  const work = await mkdtemp(join(tmpdir(), 'lowrank-generate-'))
  try {
    const tokenizer = await loadTokenizer(model)
    const ids: Int32Array[] = []
    ids.push(...(await tokenizePrompts(tokenizer, short ? texts.slice(-5) : texts)))
    tokenizer.close()
    await writeFile(join(work, 'prompts.json'), JSON.stringify(ids.map((prompt) => [...prompt])))
    const adapter = join(work, 'adapter')
    await runPython(python, script, ['adapter', '--model', model, '--output', adapter])
    const setup = { python, model, work, ids, tokens: short ? 16 : 64 }
    for (const kind of asked) for (const folder of [undefined, adapter]) await compare(setup, kind, folder)
  } finally {
    await rm(work, { recursive: true })
  }
}

const python = await findPython()
if (python !== undefined) await main(python, process.argv.slice(2))
