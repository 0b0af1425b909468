import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { LoadedAdapter } from '../../src/engine/cached/adapters.ts'
import type { CachedDecoder } from '../../src/engine/cached/cached-decoder.ts'
import type { KeyValueCache } from '../../src/engine/cached/key-value-cache.ts'
import { Runtime } from '../../src/engine/onnxruntime/runtime.ts'
import { residentWeights } from '../../src/engine/weights.ts'
import { openSafetensors, type TensorReader } from '../../src/formats/safetensors.ts'
import { embedded } from '../../src/generate/embedder.ts'
import { type GenerateRequest, type GeneratedToken, Generator } from '../../src/generate/generator.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { openDecoder } from '../../src/session/decoder.ts'
import { cachedDecoder } from '../../src/session/cached-decoder.ts'
import { type Generation, openGeneration } from '../../src/session/generation.ts'
import type { StoredWeight } from '../../src/storage/stored.ts'
import { cases, writeModel } from './family-model.ts'

/*
 * The decoder with a cache, of every family: against the one without, whose values are PyTorch's (`families.test.ts`), and against what
 * transformers generates with its own cache (`make_generation_golden.py`).
 */

const folder = fileURLToPath(new URL('generation', import.meta.url))

interface GoldenContinuations {
  readonly prompt: number
  readonly cases: Readonly<Record<string, Readonly<Record<'base' | 'adapter', readonly number[]>>>>
}
const golden = JSON.parse(await readFile(join(folder, 'decoders.json'), 'utf8')) as GoldenContinuations

/** The largest differences found, a line at the end: how far from the tolerance they are. */
const largest = new Map<string, number>()
afterAll(() => {
  const found = [...largest].map(([what, difference]) => `${what} ${difference.toExponential(1)}`)
  console.info(`cached decoder, largest differences: ${found.join(', ')}`)
})

function compare(what: string, found: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(found.length).toBe(expected.length)
  let worst = 0
  for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs((found[i] ?? NaN) - (expected[i] ?? NaN)))
  largest.set(what, Math.max(largest.get(what) ?? 0, worst))
  expect(worst, what).toBeLessThan(1e-4)
}

/** A text and what follows each of its beginnings, without a cache. */
interface Text {
  readonly ids: Int32Array
  readonly adapter: LoadedAdapter | undefined
  /** By the number of tokens before, from 1. */
  readonly logits: readonly (Float32Array | undefined)[]
}

/** Texts that are computed together in one cache. */
class Rows {
  readonly rows: { readonly text: Text; at: number }[] = []
  readonly decoder: CachedDecoder
  cache: KeyValueCache | undefined

  constructor(decoder: CachedDecoder) {
    this.decoder = decoder
  }

  async join(text: Text, count: number): Promise<void> {
    const cache = this.decoder.newCache()
    const logits = await this.decoder.run(cache, {
      ids: text.ids.slice(0, count),
      adapters: [text.adapter],
      logits: 'last',
    })
    compare('batch', logits!, text.logits[count]!)
    this.rows.push({ text, at: count })
    if (this.cache === undefined) this.cache = cache
    else this.cache.join(cache)
  }

  async step(times = 1): Promise<void> {
    for (let i = 0; i < times; i++) {
      const ids = Int32Array.from(this.rows, ({ text, at }) => text.ids[at]!)
      const adapters = this.rows.map(({ text }) => text.adapter)
      const logits = await this.decoder.run(this.cache!, { ids, adapters, logits: 'last' })
      const width = logits!.length / this.rows.length
      this.rows.forEach((row, n) => {
        row.at++
        compare('batch', logits!.subarray(n * width, (n + 1) * width), row.text.logits[row.at]!)
      })
    }
  }

  /** Takes a row out, and gives it in a cache of its own. */
  leave(place: number): Rows {
    const alone = new Rows(this.decoder)
    alone.cache = this.cache!.row(place)
    alone.rows.push(this.rows[place]!)
    this.cache!.remove(place)
    const last = this.rows.pop()!
    if (place < this.rows.length) this.rows[place] = last
    return alone
  }

  truncate(place: number, length: number): void {
    this.cache!.truncate(place, length)
    this.rows[place]!.at = length
  }
}

/** The decoder in a program for each block, as it is where weights are unpacked block by block. */
async function inBlocks(model: string): Promise<{ decoder: CachedDecoder; close: () => Promise<void> }> {
  const source = await openWeights(model)
  const weights = new Map<string, StoredWeight>()
  for (const { name } of source.specs) weights.set(name, await source.load(name))
  const runtime = new Runtime({ threads: 1 })
  const form = { storage: () => 'F32' as const, parts: 'blocks' as const, separateHead: false }
  const decoder = cachedDecoder({ config: source.config, runtime, weights: residentWeights(weights), form })
  return { decoder, close: () => Promise.all([runtime.close(), source.close()]).then(() => undefined) }
}

/** What follows each beginning of a text. */
async function uncached(model: string, adapter: string | undefined, texts: readonly Int32Array[]) {
  const { pipeline, close } = await openDecoder({ model, adapter, threads: 1 })
  const found: (Float32Array | undefined)[][] = []
  for (const ids of texts) {
    const logits: (Float32Array | undefined)[] = [undefined]
    for (let t = 1; t <= ids.length; t++) logits.push(await pipeline.nextLogits(ids.slice(0, t)))
    found.push(logits)
  }
  await close()
  return found
}

describe.each(cases)('%s', (name) => {
  let model: string
  let generation: Generation
  let blocks: Awaited<ReturnType<typeof inBlocks>>
  let adapter: LoadedAdapter
  let example: Int32Array
  let other: Int32Array
  let base: Text[]
  let adapted: Text[]
  let tensors: TensorReader
  let embeddings: TensorReader

  beforeAll(async () => {
    tensors = await openSafetensors(join(folder, 'decoders.safetensors'))
    embeddings = await openSafetensors(join(folder, 'embeddings.safetensors'))
    model = await mkdtemp(join(tmpdir(), 'lowrank-cached-'))
    const { examples } = await writeModel(name, model)
    generation = await openGeneration({ model, threads: 1 })
    blocks = await inBlocks(model)
    adapter = await generation.adapter(join(model, 'adapter'))
    example = examples[0]!.ids
    other = examples[1]!.ids
    // Beyond these lengths what follows depends on how a text came to be so long.
    const scaling = generation.config.layers[0]?.rope?.scaling
    const most = scaling?.type === 'dynamic' || scaling?.type === 'longrope' ? 16 : example.length
    const ids = [example, examples[1]!.ids, example.toReversed()].map((text) => text.slice(0, most))
    const texts = async (folder: string | undefined, own: LoadedAdapter | undefined): Promise<Text[]> => {
      const logits = await uncached(model, folder, ids)
      return ids.map((text, i) => ({ ids: text, adapter: own, logits: logits[i]! }))
    }
    base = await texts(undefined, undefined)
    adapted = await texts(join(model, 'adapter'), adapter)
  })
  afterAll(async () => {
    await tensors.close()
    await embeddings.close()
    await generation.close()
    await blocks.close()
    await rm(model, { recursive: true })
  })

  test.each([
    ['in one go', [99]],
    ['in chunks', [7, 1, 4, 99]],
    ['token by token', Array.from({ length: 24 }, () => 1)],
  ])('a text %s', async (_, sizes) => {
    for (const decoder of [generation.decoder, blocks.decoder]) {
      for (const { ids, adapter: own, logits } of [base[0]!, adapted[0]!]) {
        const cache = decoder.newCache()
        for (const [i, size] of sizes.entries()) {
          const start = cache.lengthOf(0)
          if (start === ids.length) break
          const part = ids.slice(start, start + size)
          const wanted = i === 1 ? 'none' : 'all'
          const found = await decoder.run(cache, { ids: part, adapters: [own], logits: wanted })
          if (wanted === 'none') expect(found).toBeUndefined()
          else part.forEach((__, t) => compare('text', rowOf(found!, t, part.length), logits[start + t + 1]!))
        }
        expect(cache.lengthOf(0)).toBe(ids.length)
      }
    }
  })

  test('rows of different lengths that join, leave and are cut', async () => {
    for (const decoder of [generation.decoder, blocks.decoder]) {
      const rows = new Rows(decoder)
      await rows.join(base[0]!, 3)
      await rows.step(2)
      await rows.join(adapted[1]!, 9)
      await rows.join(base[2]!, 1)
      await rows.step(2)
      await rows.join(adapted[2]!, 12)
      await rows.step()
      const left = rows.leave(1)
      await rows.step()
      rows.truncate(1, 5)
      await rows.step(2)
      const first = rows.leave(0)
      await rows.join(base[1]!, 6)
      await rows.step()
      await left.step()
      await first.step(2)
      await left.join(adapted[0]!, 4)
      left.leave(0)
      await left.step(12)
    }
  })

  test("transformers' tokens, with and without an adapter in one batch", async () => {
    const { base: plain, adapter: lora } = golden.cases[name]!
    const prompt = example.slice(0, golden.prompt)
    for (const decoder of [generation.decoder, blocks.decoder]) {
      const asked = (own: LoadedAdapter | undefined, maxNewTokens: number) =>
        request({ ids: prompt, adapter: own, maxNewTokens })
      const texts = await generated(decoder, [
        asked(undefined, plain.length),
        asked(undefined, 3),
        asked(adapter, lora.length),
      ])
      expect(texts.map((tokens) => tokens.map(({ id }) => id))).toEqual([plain, plain.slice(0, 3), lora])
      for (const [text, run] of [
        [0, 'base'],
        [2, 'adapter'],
      ] as const) {
        const expected = new Float32Array((await tensors.read(`${name}.${run}`)).buffer)
        texts[text]!.forEach(({ top }, step) => {
          const logits = rowOf(expected, step, plain.length)
          const sum = Math.log(logits.reduce((total, one) => total + Math.exp(one), 0))
          compare(
            'against transformers',
            top!.map(({ logprob }) => logprob),
            top!.map(({ id }) => logits[id]! - sum),
          )
        })
      }
    }
  })

  test.each([undefined, 7])("transformers' embeddings of texts, %s tokens at once", async (chunk) => {
    const texts = [example.slice(0, 5), example, other]
    for (const decoder of [generation.decoder, blocks.decoder]) {
      for (const [run, own] of [
        ['base', undefined],
        ['adapter', adapter],
      ] as const) {
        const expected = new Float32Array((await embeddings.read(`${name}.${run}`)).buffer)
        const found = new Set<number>()
        for await (const { index, vector } of embedded(decoder, texts, { adapter: own, ...(chunk && { chunk }) })) {
          compare('embeddings', vector, rowOf(expected, index, texts.length))
          found.add(index)
        }
        expect(found).toEqual(new Set(texts.keys()))
      }
    }
  })

  test('a prompt that begins as an earlier text is continued as any other', async () => {
    const first = request({ ids: example.slice(0, golden.prompt), adapter, maxNewTokens: 12 })
    const generator = new Generator(generation.decoder, letters)
    const [made = []] = await collect(generator, [first])
    for (const length of [1, 4, 8, 11]) {
      const ids = Int32Array.from([...first.ids, ...made.slice(0, length).map(({ id }) => id)])
      for (const other of [adapter, undefined]) {
        const longer = request({ ids, adapter: other, maxNewTokens: 5 })
        const [found] = await collect(generator, [longer])
        const [fresh] = await generated(generation.decoder, [longer])
        expect(found!.map(({ id }) => id)).toEqual(fresh!.map(({ id }) => id))
        compare(
          'prefix',
          found!.map(({ logprob }) => logprob!),
          fresh!.map(({ logprob }) => logprob!),
        )
      }
    }
  })
})

/** A tokenizer for ids that have none: a letter each. */
const letters = {
  decode: async (all: readonly ArrayLike<number>[]) =>
    all.map((ids) => String.fromCharCode(...Array.from(ids, (id) => 65 + id))),
}

function request(own: Pick<GenerateRequest, 'ids' | 'adapter' | 'maxNewTokens'>): GenerateRequest {
  return { ...own, sampling: { doSample: false }, seed: 1, endIds: new Set(), logprobs: 20 }
}

function generated(decoder: CachedDecoder, requests: readonly GenerateRequest[]): Promise<GeneratedToken[][]> {
  return collect(new Generator(decoder, letters), requests)
}

async function collect(generator: Generator, requests: readonly GenerateRequest[]): Promise<GeneratedToken[][]> {
  const texts: GeneratedToken[][] = requests.map(() => [])
  for await (const token of generator.generate(requests)) texts[token.index]!.push(token)
  return texts
}

function rowOf(all: Float32Array, row: number, rows: number): Float32Array {
  const width = all.length / rows
  return all.subarray(row * width, (row + 1) * width)
}
