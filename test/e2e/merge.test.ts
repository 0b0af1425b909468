import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MergeConfigInput, MergeResult } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { openCheckpoint } from '../../src/formats/safetensors.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { widened } from '../../src/storage/formats.ts'
import { bytesToF32 } from '../../src/util/dtype.ts'
import { directTasks } from '../tasks.ts'
import { writeAsGguf } from './gguf-model.ts'
import { mergeSetup } from './merge-setup.ts'
import {
  flags,
  hashFolder,
  listFiles,
  lowrank,
  lowrankHere,
  makeTinyModel,
  readJson,
  sha256,
  tensorShapes,
} from './support.ts'

const { folder, data, at, train, prepare, lossOf } = mergeSetup()
let model = ''
let before: Record<string, string> = {}

/** Merges in f32, and compares the loss with that of the adapter beside its base. */
async function mergesExactly(name: string, config: Omit<MergeConfigInput, 'output'>, adapter: string): Promise<string> {
  const output = at(`merged-${name}`)
  await directTasks.merge({ dtype: 'f32', ...config, output })
  const [found, expected] = [await lossOf({ model: output }), await lossOf({ model: config.model, adapter })]
  expect(Math.abs(found - expected)).toBeLessThan(1e-5)
  // The adapter does something.
  expect(Math.abs(found - (await lossOf({ model: config.model })))).toBeGreaterThan(1e-3)
  return output
}

beforeAll(async () => {
  model = await prepare()
  before = hashFolder(folder)
})

describe('a merged model', () => {
  test('is a model folder that computes what base and adapter do', async () => {
    const output = at('lora-f32')
    const args = flags({ model, adapter: at('lora'), output, dtype: 'f32', json: true })
    const { code, stdout, stderr } = await lowrank(['merge', ...args])
    expect(code, stderr).toBe(0)
    const result = JSON.parse(stdout) as MergeResult
    const shapes = tensorShapes(join(output, 'model.safetensors'))
    expect(shapes).toEqual(tensorShapes(join(model, 'model.safetensors')))
    expect(result).toMatchObject({ outputDir: output, tensors: Object.keys(shapes).length, dtype: 'f32' })
    expect(result.layers.map(({ layer }) => layer)).toEqual([0, 1])
    // Seven layers with weight and bias.
    expect(result.total).toMatchObject({ weights: 28, rounding: 0, lost: 0 })
    expect(result.total.delta).toBeGreaterThan(1e-3)
    expect(stderr).toContain(`base model: as it is stored (by ${join(at('lora'), 'run.json')})`)
    expect(stderr).toMatch(/merging: .* of .* written \(\d+ %\)/)
    const others = listFiles(model).filter((name) => !/^(run\.json|metrics\.jsonl|report\.html)$/.test(name))
    expect(listFiles(output)).toEqual([...others, 'merge.json'].sort())
    for (const name of ['tokenizer.json', 'tokenizer_config.json', 'config.json', 'generation_config.json'])
      expect(sha256(join(output, name)), name).toBe(sha256(join(model, name)))
    const record = readJson(join(output, 'merge.json')) as { base: object; adapters: object[] }
    expect(record.base).toMatchObject({
      name: model,
      sha256: (readJson(join(at('lora'), 'run.json')) as Hashed).hashes.model,
    })
    expect(record.adapters).toEqual([{ name: at('lora'), scale: 1, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }])
    const expected = await lossOf({ model, adapter: at('lora') })
    expect(Math.abs((await lossOf({ model: output })) - expected)).toBeLessThan(1e-5)
    expect(hashFolder(model)).toMatchObject({ 'model.safetensors': before['tiny/model.safetensors'] })
  })

  test('of a QLoRA adapter is made of the base as it was held', async () => {
    const output = await mergesExactly('qlora', { model, adapter: at('qlora') }, at('qlora'))
    expect(readJson(join(output, 'merge.json'))).toMatchObject({
      base: { held: '4-bit nf4 with double quantization in blocks of 64' },
    })
    const messages: string[] = []
    const original = at('into-original')
    const config = { model, adapter: at('qlora'), dtype: 'f32', into: 'original', output: original } as const
    await directTasks.merge(config, { onStatus: (message) => messages.push(message) })
    expect(messages.join('\n')).toMatch(/warning: the adapter was trained on a base in 4-bit nf4 .* another model/)
    const [held, other] = [await lossOf({ model: output }), await lossOf({ model: original })]
    const expected = await lossOf({ model, adapter: at('qlora'), loadIn4bit: false })
    expect(Math.abs(other - expected)).toBeLessThan(1e-5)
    expect(Math.abs(other - held)).toBeGreaterThan(1e-4)
  })

  test('may be made of a model that is quantized already', async () => {
    await directTasks.quantize({ model, output: at('nf4') })
    const adapter = await train('on-nf4', { model: at('nf4'), targetModules: ['q_proj'] })
    const output = await mergesExactly('on-nf4', { model: at('nf4'), adapter }, adapter)
    expect(readFileSync(join(output, 'config.json'), 'utf8')).not.toContain('quantization_config')
    // What no adapter changes is no longer quantized either.
    expect(tensorShapes(join(output, 'model.safetensors'))['model.layers.0.mlp.up_proj.weight']).toEqual([64, 32])
  })

  test('has a head of its own where it was tied, and an adapter has that or the embedding in full', async () => {
    for (const saved of ['lm_head', 'embed_tokens']) {
      const adapter = await train(`saves-${saved}`, { modulesToSave: [saved] })
      const output = await mergesExactly(saved, { model, adapter }, adapter)
      expect(readJson(join(output, 'config.json'))).toMatchObject({ tie_word_embeddings: false })
      expect(tensorShapes(join(output, 'model.safetensors'))['lm_head.weight']).toEqual([2496, 32])
    }
  })

  test('has the sum of several adapters, each with its scale', async () => {
    const output = at('two')
    const args = ['--model', model, '--adapter', at('lora'), '--adapter', `${at('other')}:-0.5`]
    const { code, stderr } = await lowrankHere(['merge', ...args, '--output', output, '--dtype', 'f32'])
    expect(code, stderr).toBe(0)
    const name = 'model.layers.1.mlp.down_proj.weight'
    const [base, sum, one, other] = await Promise.all(
      [model, output, await mergeAlone('lora'), await mergeAlone('other')].map((path) => valuesOf(path, name)),
    )
    const expected = base!.map((value, i) => one![i]! - 0.5 * (other![i]! - value))
    for (const [i, value] of expected.entries()) expect(Math.abs(sum![i]! - value)).toBeLessThan(1e-6)
    expect(stderr).toContain(`warning: the scale of ${at('other')} is negative: its effect is subtracted.`)
    const { adapters } = readJson(join(output, 'merge.json')) as { adapters: { scale: number }[] }
    expect(adapters.map(({ scale }) => scale)).toEqual([1, -0.5])
  })

  test('may have shards, and is stored as it is asked', async () => {
    const output = at('sharded')
    const result = await directTasks.merge({ model, adapter: at('lora'), output, dtype: 'bf16', maxShardSize: '10KB' })
    expect(listFiles(output).filter((name) => /^model-\d+-of-\d+/.test(name)).length).toBeGreaterThan(3)
    expect(readJson(join(output, 'config.json'))).toMatchObject({ torch_dtype: 'bfloat16' })
    expect(result).toMatchObject({ dtype: 'bf16' })
    const { rounding, roundingOfDelta, lost } = result.total
    // A number is rounded by at most one part in 256; here half of that, and half again on average.
    expect(rounding).toBeGreaterThan(1e-3)
    expect(rounding).toBeLessThan(2 ** -8)
    expect(roundingOfDelta).toBeGreaterThan(rounding)
    expect(lost).toBeGreaterThan(0)
    expect(lost).toBeLessThan(1)
    const reader = await openCheckpoint(output)
    const source = await openWeights(await mergeAlone('lora'))
    for (const [name, { dtype }] of reader.tensors) {
      expect(dtype).toBe('BF16')
      const stored = bytesToF32(await reader.read(name), 'BF16')
      const exact = widened(await source.load(name)).data
      for (const [i, value] of stored.entries()) {
        expect(Math.abs(value - exact[i]!)).toBeLessThanOrEqual(Math.abs(exact[i]!) * 2 ** -8)
      }
    }
    await source.close()
    await reader.close()
  })

  test('of a GGUF file is a folder with its configuration and tokenizer', async () => {
    const gguf = at('tiny.gguf')
    const plain = await makeTinyModel(at('plain'), { attention_bias: false, mlp_bias: false })
    await writeAsGguf(plain, gguf, at('same'))
    const adapter = await train('on-gguf', { model: gguf, targetModules: 'all-linear' })
    const output = await mergesExactly('gguf', { model: gguf, adapter }, adapter)
    expect(readJson(join(output, 'config.json'))).toMatchObject({ model_type: 'llama', hidden_size: 32 })
    const stored = await directTasks.merge({ model: gguf, adapter, output: at('gguf-auto') })
    // Blocks have no dtype of floats; norms do.
    expect(stored.dtype).toBe('bf16, f32')
  })

  test('has the template with which its adapter was trained', async () => {
    const path = at('chats.jsonl')
    const chat = [
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'Hello to you' },
    ]
    writeFileSync(path, `${JSON.stringify({ messages: chat })}\n`)
    const adapter = await train('templated', { train: path, valid: undefined, chatTemplate: 'zephyr' })
    const messages: string[] = []
    const output = at('merged-templated')
    await directTasks.merge({ model, adapter, output }, { onStatus: (message) => messages.push(message) })
    expect(messages).toContain('tokenizer: that of the adapter, which differs in chat_template.jinja')
    expect(sha256(join(output, 'chat_template.jinja'))).toBe(sha256(join(adapter, 'chat_template.jinja')))
  })
})

interface Hashed {
  readonly hashes: Readonly<Record<string, string>>
}

/** One adapter merged in f32. */
async function mergeAlone(name: string): Promise<string> {
  const output = at(`alone-${name}`)
  if (!existsSync(output)) await directTasks.merge({ model, adapter: [at(name)], output, dtype: 'f32' })
  return output
}

async function valuesOf(path: string, name: string): Promise<Float32Array> {
  const source = await openWeights(path)
  const { data: values } = widened(await source.load(name))
  await source.close()
  return values
}

describe('the report on data', () => {
  test('compares with the unmerged adapter, in a table of at most 100 columns', async () => {
    const args = flags({ model, adapter: at('qlora'), output: at('reported'), dtype: 'bf16', data: data.valid })
    const { code, stdout, stderr } = await lowrankHere(['merge', ...args, '--max-length', '64'])
    expect(code, stderr).toBe(0)
    const [saved, ...lines] = stdout.split('\n')
    expect(saved).toBe(`saved in ${at('reported')}`)
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(100)
    expect(stdout).toMatch(/^all +14 +[\d.]+ % +[\d.]+ % +[\d.]+ % +[\d.]+ %$/m)
    expect(stdout).toMatch(/^merged, then 4-bit \(nf4\) +\d/m)
    expect(stderr).toContain('comparing: merged, then 8-bit')
  })

  test('has the figures of eval, and zero where nothing is rounded', async () => {
    const output = at('reported-f32')
    const config = { model, adapter: at('qlora'), output, dtype: 'f32', data: data.valid, maxLength: 64 } as const
    const { comparison } = await directTasks.merge(config)
    expect(comparison).toBeDefined()
    const { reference, labelTokens, comparedTokens, models, data: summary } = comparison!
    expect({ reference, comparedTokens }).toEqual({ reference: 'unmerged', comparedTokens: labelTokens })
    expect(summary).toMatchObject({ path: data.valid, labelTokens })
    const byName = new Map(models.map((one) => [one.name, one]))
    expect([...byName.keys()]).toEqual([
      'base in 4-bit nf4 + adapter, unmerged',
      'base in 4-bit nf4 alone',
      'merged, as written (f32)',
      'merged, bf16',
      'merged, then 8-bit',
      'merged, then 4-bit (nf4)',
      'merged into the original weights, bf16',
    ])
    const [unmerged, written, bf16, eight, four] = [...byName.values()].filter((_, i) => i !== 1)
    expect(Math.abs(unmerged!.loss - (await lossOf({ model, adapter: at('qlora') })))).toBeLessThan(1e-5)
    expect(unmerged).toMatchObject({ agreement: 1, largestLogitDifference: 0, divergence: 0 })
    expect(written!.agreement).toBe(1)
    expect(written!.largestLogitDifference).toBeLessThan(1e-4)
    const nf4 = await directTasks.evaluate({
      model: output,
      data: data.valid,
      maxLength: 64,
      loadIn4bit: true,
      bnb4bitQuantType: 'nf4',
      bnb4bitUseDoubleQuant: true,
    })
    expect(Math.abs(four!.loss - nf4.loss)).toBeLessThan(1e-5)
    expect(Math.abs(four!.tokenAccuracy - nf4.tokenAccuracy)).toBeLessThan(1e-9)
    const order = [written, bf16, eight, four].map((one) => one!.largestLogitDifference)
    expect(order).toEqual(order.toSorted((a, b) => a - b))
    const divergences = [written, bf16, eight, four].map((one) => one!.divergence)
    expect(divergences).toEqual(divergences.toSorted((a, b) => a - b))
  })

  test('of several adapters compares with their sum in f32', async () => {
    const adapter = [at('lora'), `${at('other')}:0.5`]
    const config = { model, adapter, output: at('reported-two'), data: data.valid, maxLength: 64 }
    const { comparison } = await directTasks.merge(config)
    expect(comparison).toMatchObject({
      reference: 'f32',
      models: [{ name: 'base + adapters, merged in f32' }, {}, {}, {}, {}, {}],
    })
  })

  test('data that cannot be read are refused before anything is written', async () => {
    const output = at('no-data')
    const args = flags({ model, adapter: at('lora'), output, data: at('missing.jsonl') })
    const { code, stderr } = await lowrankHere(['merge', ...args])
    expect([code, stderr]).toEqual([2, expect.stringMatching(/missing\.jsonl/)])
    expect(existsSync(output)).toBe(false)
  })
})

test('lowrank quantize warns of a merged model, and keeps its record', async () => {
  const [merged, output] = [await mergeAlone('lora'), at('merged-nf4')]
  const { code, stderr } = await lowrankHere(['quantize', ...flags({ model: merged, output })])
  expect(code).toBe(0)
  expect(stderr).toContain(`warning: ${merged} was merged from ${model} and ${at('lora')} (merge.json): quantizing can`)
  expect(sha256(join(output, 'merge.json'))).toBe(sha256(join(merged, 'merge.json')))
})
