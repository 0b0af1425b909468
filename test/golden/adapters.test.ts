import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Precision, quantizationOf } from '../../src/config/index.ts'
import type { LoadedAdapter } from '../../src/engine/cached/adapters.ts'
import { Generator } from '../../src/generate/generator.ts'
import { trainEverything } from '../../src/model/peft/adapt.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { type DecoderOptions, openDecoder } from '../../src/session/decoder.ts'
import { type Generation, openGeneration } from '../../src/session/generation.ts'
import { heldAdapter } from '../../src/session/loaded-adapter.ts'
import { widened } from '../../src/storage/formats.ts'
import type { F32Weight } from '../../src/storage/stored.ts'
import { readGolden, type Shapes, writeModel, writeTensors } from './family-model.ts'

/*
 * Adapters beside one base model, several in a batch: each row as the decoder without a cache computes it with that adapter alone.
 */

const golden = fileURLToPath(new URL('.', import.meta.url))
const work = await mkdtemp(join(tmpdir(), 'lowrank-adapters-'))
afterAll(() => rm(work, { recursive: true }))

/** A model with biases and a tied head. */
const model = join(work, 'model')
const hidden = 24
const sizes = new Map([
  ['q_proj', [hidden, 36]],
  ['v_proj', [hidden, 12]],
  ['o_proj', [36, hidden]],
  ['down_proj', [40, hidden]],
] as const)
type Module = 'q_proj' | 'v_proj' | 'o_proj' | 'down_proj'

interface AdapterJson {
  readonly r: number
  readonly lora_alpha: number
  readonly target_modules: readonly Module[]
  readonly rank_pattern?: Readonly<Partial<Record<Module, number>>>
  readonly alpha_pattern?: Readonly<Partial<Record<Module, number>>>
  readonly use_rslora?: boolean
  readonly bias?: 'none' | 'all' | 'lora_only'
  readonly modules_to_save?: readonly ('lm_head' | 'embed_tokens' | 'down_proj')[]
}

/** An adapter in the files of PEFT; `saved` are its tensors that stand for those of the model. */
async function writeAdapter(name: string, json: AdapterJson, saved: Shapes = []): Promise<string> {
  const folder = join(work, name)
  await mkdir(folder)
  const config = { peft_type: 'LORA', task_type: 'CAUSAL_LM', ...json }
  await writeFile(join(folder, 'adapter_config.json'), JSON.stringify(config))
  const lora = [0, 1].flatMap((layer) =>
    json.target_modules.flatMap((module): Shapes => {
      const [inFeatures, outFeatures] = sizes.get(module)!
      const r = json.rank_pattern?.[module] ?? json.r
      const part = module === 'down_proj' ? 'mlp' : 'self_attn'
      const path = `base_model.model.model.layers.${layer}.${part}.${module}`
      return [
        [`${path}.lora_A.weight`, [r, inFeatures]],
        [`${path}.lora_B.weight`, [outFeatures, r]],
      ]
    }),
  )
  const salt = 1000 + 100 * name.length
  await writeTensors(join(folder, 'adapter_model.safetensors'), [...lora, ...saved], salt, 1)
  return folder
}

const biases = (names: readonly string[]): Shapes =>
  [0, 1].flatMap((layer) =>
    names.map((name) => {
      const size = name.includes('q_proj') ? 36 : /[kv]_proj/.test(name) ? 12 : /gate|up/.test(name) ? 40 : hidden
      // PEFT wraps what it adapts, here the queries.
      const inner = name.includes('q_proj') ? '.base_layer' : ''
      return [`base_model.model.model.layers.${layer}.${name}${inner}.bias`, [size]] as const
    }),
  )
const head = [['base_model.model.lm_head.weight', [48, hidden]]] as const
const embedding = [['base_model.model.model.embed_tokens.weight', [48, hidden]]] as const

const ids = Int32Array.from([1, 17, 44, 9, 30, 22, 5, 41, 12, 8, 33, 2])

/** What follows each beginning of the ids. */
async function uncached(
  adapter: string | undefined,
  base: Pick<DecoderOptions, 'model' | 'quantization'> = { model },
): Promise<Float32Array[]> {
  const { pipeline, close } = await openDecoder({ ...base, adapter, threads: 1 })
  const found: Float32Array[] = []
  for (let t = 1; t <= ids.length; t++) found.push(await pipeline.nextLogits(ids.slice(0, t)))
  await close()
  return found
}

const worstOf = (found: Float32Array, expected: Float32Array): number => {
  expect(found.length).toBe(expected.length)
  return found.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0)
}

async function opened(precision: Precision = 'exact'): Promise<Generation> {
  return await openGeneration({ model, threads: 1, precision })
}

beforeAll(async () => {
  await mkdir(model)
  await writeModel('llama-gelu-yarn', model)
})

describe('several adapters in a batch', () => {
  let folders: readonly (string | undefined)[]
  beforeAll(async () => {
    folders = [
      await writeAdapter('five', {
        r: 5,
        lora_alpha: 8,
        target_modules: ['q_proj', 'v_proj'],
        rank_pattern: { v_proj: 3 },
        alpha_pattern: { v_proj: 2 },
        use_rslora: true,
      }),
      undefined,
      await writeAdapter('one', { r: 1, lora_alpha: 3, target_modules: ['down_proj'] }),
      join(model, 'adapter'),
      await writeAdapter('three', { r: 3, lora_alpha: 3, target_modules: ['o_proj', 'q_proj'] }),
    ]
  })

  test('each row is as with its adapter alone', async () => {
    const { decoder, adapter, close } = await opened()
    const adapters = await Promise.all(
      folders.map(async (folder) => (folder === undefined ? undefined : await adapter(folder))),
    )
    const expected = await Promise.all(folders.map((folder) => uncached(folder)))
    // They differ from each other by more than what is compared.
    for (const [i, own] of expected.entries()) {
      for (const other of expected.slice(i + 1)) expect(worstOf(own.at(-1)!, other.at(-1)!)).toBeGreaterThan(1e-2)
    }
    const cache = decoder.newCache(folders.length)
    const half = 5
    const repeated = (from: number, to: number): Int32Array =>
      Int32Array.from(folders.flatMap(() => Array.from(ids.slice(from, to))))
    const check = (logits: Float32Array, seq: number, from: number, rows: readonly number[]): void => {
      const width = logits.length / rows.length / seq
      rows.forEach((row, place) => {
        for (let t = 0; t < seq; t++) {
          const at = (place * seq + t) * width
          expect(worstOf(logits.subarray(at, at + width), expected[row]![from + t]!), `row ${row}, ${t}`).toBeLessThan(
            1e-4,
          )
        }
      })
    }
    const first = await decoder.run(cache, { ids: repeated(0, half), adapters, logits: 'all' })
    check(first!, half, 0, [0, 1, 2, 3, 4])
    // The second row leaves, and the last one takes its place: other adapters are side by side then.
    cache.remove(2)
    const rest = [0, 1, 4, 3]
    for (let t = half; t < ids.length; t++) {
      const found = await decoder.run(cache, {
        ids: new Int32Array(rest.length).fill(ids[t]!),
        adapters: rest.map((row) => adapters[row]),
        logits: 'last',
      })
      check(found!, 1, t, rest)
    }
    await close()
  })

  test('in integers too, whichever adapter the programs were made for', async () => {
    const { decoder, adapter, close } = await opened('fast')
    const run = async (own: LoadedAdapter | undefined): Promise<Float32Array> =>
      (await decoder.run(decoder.newCache(), { ids, adapters: [own], logits: 'last' }))!
    const plain = await run(undefined)
    expect(worstOf(plain, (await uncached(undefined)).at(-1)!)).toBeLessThan(0.2)
    for (const folder of folders) {
      if (folder === undefined) continue
      const loaded = await adapter(folder)
      const expected = (await uncached(folder)).at(-1)!
      const found = await run(loaded)
      expect(worstOf(found, expected)).toBeLessThan(0.2)
      expect(worstOf(found, plain)).toBeGreaterThan(1e-2)
      // The base model's rows are those of before, though the programs have adapters now.
      expect(worstOf(await run(undefined), plain)).toBeLessThan(1e-5)
    }
    await close()
  })
})

describe('what an adapter has of its own stands for that of the base', () => {
  const lora = { r: 2, lora_alpha: 4, target_modules: ['q_proj'] } as const
  const attention = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj']
  const all = [...attention, 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj']
  const cases = {
    'a head that the base ties': [{ ...lora, modules_to_save: ['lm_head'] }, head],
    'an embedding, while the head stays': [{ ...lora, modules_to_save: ['embed_tokens'] }, embedding],
    both: [{ ...lora, modules_to_save: ['lm_head', 'embed_tokens'] }, [...head, ...embedding]],
    'its biases': [{ ...lora, bias: 'lora_only' }, biases(['self_attn.q_proj'])],
    'all biases': [{ ...lora, bias: 'all' }, biases(all)],
  } as const satisfies Readonly<Record<string, readonly [AdapterJson, Shapes]>>

  test.each(Object.keys(cases) as (keyof typeof cases)[])('%s', async (name) => {
    const [json, saved] = cases[name]
    const folder = await writeAdapter(name, json, saved)
    const { decoder, adapter, close } = await opened()
    const loaded = await adapter(folder)
    expect(loaded.replaced.size).toBeGreaterThan(0)
    const [base, expected] = [await uncached(undefined), await uncached(folder)]
    expect(worstOf(base.at(-1)!, expected.at(-1)!)).toBeGreaterThan(1e-2)
    for (const own of [loaded, undefined, loaded]) {
      const found = await decoder.run(decoder.newCache(), { ids, adapters: [own], logits: 'last' })
      expect(worstOf(found!, (own ? expected : base).at(-1)!)).toBeLessThan(1e-4)
    }
    await close()
  })

  test('a linear layer, in a base of 4 bits', async () => {
    const saved = [0, 1].map(
      (layer) => [`base_model.model.model.layers.${layer}.mlp.down_proj.weight`, [hidden, 40]] as const,
    )
    const bias = [0, 1].map((layer) => [`base_model.model.model.layers.${layer}.mlp.down_proj.bias`, [hidden]] as const)
    const folder = await writeAdapter('linear', { ...lora, modules_to_save: ['down_proj'] }, [...saved, ...bias])
    const quantization = quantizationOf({
      loadIn8bit: false,
      loadIn4bit: true,
      bnb4bitQuantType: 'nf4',
      bnb4bitUseDoubleQuant: true,
    })
    const { decoder, adapter, close } = await openGeneration({ model, threads: 1, quantization })
    const own = await adapter(folder)
    const found = await decoder.run(decoder.newCache(), { ids, adapters: [own], logits: 'last' })
    expect(worstOf(found!, (await uncached(folder, { model, quantization })).at(-1)!)).toBeLessThan(1e-4)
    await close()
  })

  test('every weight, where all are trained: a tied head is the trained embedding', async () => {
    const other = join(work, 'trained')
    await mkdir(other)
    await writeModel('llama-gelu-yarn', other)
    await writeTensors(join(other, 'model.safetensors'), (await readGolden('llama-gelu-yarn')).tensors, 77, 1)
    const [base, trained] = [await openWeights(model), await openWeights(other)]
    const weights = new Map<string, F32Weight>()
    for (const { name } of trained.specs) weights.set(name, widened(await trained.load(name)))
    const { decoder, close } = await opened()
    const own = await heldAdapter(base, trainEverything(base), weights)
    const found = await decoder.run(decoder.newCache(), { ids, adapters: [own], logits: 'last' })
    expect(worstOf(found!, (await uncached(undefined, { model: other })).at(-1)!)).toBeLessThan(1e-4)
    await Promise.all([close(), base.close(), trained.close()])
  })

  test('a batch of it and others is an error, and no wrong text', async () => {
    const folder = await writeAdapter('saved among others', { ...lora, modules_to_save: ['lm_head'] }, head)
    const { decoder, adapter, close } = await opened()
    const own = await adapter(folder)
    for (const other of [undefined, await adapter(join(model, 'adapter'))]) {
      const run = decoder.run(decoder.newCache(2), { ids: Int32Array.of(1, 2), adapters: [own, other], logits: 'last' })
      await expect(run).rejects.toThrow('replaces weights of the base in a batch with others')
    }
    await close()
  })

  test('its texts are made one adapter at a time', async () => {
    const folder = await writeAdapter('saved in turns', { ...lora, modules_to_save: ['lm_head'] }, head)
    const { decoder, adapter, close } = await opened()
    const loaded = [await adapter(folder), undefined, await adapter(join(model, 'adapter')), undefined]
    const letters = { decode: async (some: readonly ArrayLike<number>[]) => some.map(() => '') }
    const generated = async (adapters: readonly (LoadedAdapter | undefined)[]): Promise<number[][]> => {
      const texts = adapters.map((): number[] => [])
      const requests = adapters.map((own, i) => {
        return {
          ids: ids.slice(0, 4),
          adapter: own,
          maxNewTokens: 4 + i,
          sampling: { doSample: false },
          seed: 1,
          endIds: new Set<number>(),
        }
      })
      for await (const { index, id } of new Generator(decoder, letters).generate(requests)) texts[index]!.push(id)
      return texts
    }
    const alone = await Promise.all(loaded.map((one) => generated([one])))
    const together = await generated(loaded)
    expect(together.map((text) => text.slice(0, 4))).toEqual(alone.map(([text]) => text))
    expect(together.map(({ length }) => length)).toEqual([4, 5, 6, 7])
    await close()
  })

  test('products in integers refuse what is a constant of theirs, and say what else can be done', async () => {
    const folder = await writeAdapter('saved and fast', { ...lora, modules_to_save: ['lm_head'] }, head)
    const { adapter, close } = await opened('fast')
    await expect(adapter(folder)).rejects.toMatchObject({
      code: 'config',
      message: `${folder}: the adapter has a lm_head.weight of its own, which "precision": fast cannot hold`,
    })
    await close()
  })
})

test.each([
  ['gqa-tied', 'adapter'],
  ['gqa-tied', 'adapter-saved-head'],
  ['bias-untied', 'adapter'],
])('those that PEFT has written: %s, %s', async (base, name) => {
  const folder = join(golden, base)
  const { decoder, adapter, close } = await openGeneration({ model: folder, threads: 1 })
  const { pipeline, close: end } = await openDecoder({ model: folder, adapter: join(folder, name), threads: 1 })
  const own = await adapter(join(folder, name))
  for (const length of [1, 7, 12]) {
    const found = await decoder.run(decoder.newCache(), { ids: ids.slice(0, length), adapters: [own], logits: 'last' })
    expect(worstOf(found!, await pipeline.nextLogits(ids.slice(0, length)))).toBeLessThan(1e-4)
  }
  await Promise.all([close(), end()])
})

describe('an adapter for another model is refused, by its file', () => {
  test.each([
    ['of other sizes', { r: 2, lora_alpha: 4, target_modules: ['q_proj'] }, 40],
    ['of more layers', { r: 2, lora_alpha: 4, target_modules: ['v_proj'] }, undefined],
  ] as const)('%s', async (name, json, width) => {
    const folder = await writeAdapter(name, json)
    const path = 'base_model.model.model.layers'
    const module = `self_attn.${json.target_modules[0]}`
    const [inFeatures, outFeatures] = sizes.get(json.target_modules[0])!
    const shapes = [0, 1, ...(width === undefined ? [7] : [])].flatMap((layer): Shapes => [
      [`${path}.${layer}.${module}.lora_A.weight`, [2, width ?? inFeatures]],
      [`${path}.${layer}.${module}.lora_B.weight`, [outFeatures, 2]],
    ])
    await writeTensors(join(folder, 'adapter_model.safetensors'), shapes, 1, 1)
    const { adapter, close } = await opened()
    const error: unknown = await adapter(folder).catch((found: unknown) => found)
    expect(error).toMatchObject({ code: 'adapter' })
    expect(String(error)).toContain(join(folder, 'adapter_model.safetensors'))
    expect(String(error)).toContain(width === undefined ? 'layers.7' : '[2, 40]')
    await close()
  })
})
