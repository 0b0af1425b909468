import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { openCheckpoint, openSafetensors, type TensorSource, writeSafetensors } from '../../src/formats/safetensors.ts'
import { parseDecoderConfig } from '../../src/model/config.ts'
import { randomWeights } from '../../src/model/sources/checkpoint.ts'
import { isFloat } from '../../src/storage/stored.ts'
import { bytesOf } from '../../src/util/dtype.ts'
import { directTasks } from '../tasks.ts'
import { collect, quickstart, readJson, sha256, temporaryFolder, writeData } from './support.ts'

/*
 * A model of texts and images, of which the part for texts is computed. That it is computed rightly, and that names are those of PEFT, is
 * compared in test/golden/families.test.ts.
 */

const folder = temporaryFolder()
const data = writeData(folder, { train: 4, valid: 2 })
const text = {
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
  vocab_size: 2496,
  sliding_window: 8,
}
const config = { model_type: 'gemma3', text_config: text, vision_config: {} }

/** What the parts for images hold would be refused where it were read. */
const images = [
  'vision_tower.encoder.layers.0.self_attn.q_proj.weight',
  'multi_modal_projector.mm_soft_emb_norm.weight',
]
const notNumbers = new Uint8Array(new Float32Array(16).fill(NaN).buffer)

/** Writes the model by names as a version of transformers has them. */
async function writeModel(
  name: string,
  nameOf: (name: string) => string,
  changes: { readonly tied?: boolean; readonly promised?: boolean } = {},
): Promise<string> {
  const { tied = true, promised = tied } = changes
  const describe = (tie_word_embeddings: boolean): object => ({
    ...config,
    tie_word_embeddings,
    text_config: { ...text, tie_word_embeddings },
  })
  const model = join(folder, name)
  mkdirSync(model)
  cpSync(quickstart, model, { recursive: true, filter: (path) => !/config\.json$|\.safetensors$/.test(path) })
  writeFileSync(join(model, 'config.json'), JSON.stringify(describe(promised)))
  writeFileSync(join(model, 'preprocessor_config.json'), '{}')
  const random = randomWeights(parseDecoderConfig(describe(tied), 'config.json'), 1)
  const tensors: TensorSource[] = []
  for (const { name: weight, shape } of random.specs) {
    const loaded = await random.load(weight)
    if (!isFloat(loaded)) throw new Error('not in floats')
    tensors.push({ name: nameOf(weight), dtype: 'F32', shape, data: bytesOf(loaded.data) })
  }
  for (const part of images) tensors.push({ name: nameOf(part), dtype: 'F32', shape: [4, 4], data: notNumbers })
  await writeSafetensors(join(model, 'model.safetensors'), tensors, { format: 'pt' })
  return model
}

const inFiles = (name: string): string =>
  name.replace('model.language_model.', 'language_model.model.').replace(/^lm_head/, 'language_model.lm_head')
const inMemory = (name: string): string => (images.includes(name) ? `model.${name}` : name)

let model: string
let untied: string
beforeAll(async () => {
  model = await writeModel('files', inFiles)
  // With a head of its own, whatever config.json says.
  untied = await writeModel('files-untied', inFiles, { tied: false, promised: true })
})

/** The other parts of a model, as they are stored. */
async function kept(path: string): Promise<unknown> {
  const reader = await openCheckpoint(path)
  const found = await Promise.all(
    images.map(async (name) => [name, reader.tensors.get(name)?.dtype, await reader.read(name)]),
  )
  await reader.close()
  return found
}

const lossOf = async (folderOf: string, adapter?: string): Promise<number> =>
  (await directTasks.evaluate({ model: folderOf, adapter, data: data.valid, threads: 1 })).loss

test('its weights may have the names of files or those of modules', async () => {
  expect(await lossOf(await writeModel('modules', inMemory))).toBe(await lossOf(model))
  expect(await lossOf(await writeModel('modules-untied', inMemory, { tied: false }))).toBe(await lossOf(untied))
})

test('a tensor of none of its parts is refused by name', async () => {
  const other = await writeModel('other', (name) => inFiles(name).replace('vision_tower', 'audio_tower'))
  await expect(lossOf(other)).rejects.toThrow(/holds "audio_tower\.encoder\.layers\.0\.self_attn\.q_proj\.weight"/)
})

test.each([{ loadIn4bit: true }, { loadIn8bit: true }])(
  'quantized by %o, the other parts stay as they are',
  async (held) => {
    const output = join(folder, Object.keys(held).join())
    await directTasks.quantize({ model: untied, output, ...held })
    expect(Math.abs((await lossOf(output)) - (await lossOf(untied)))).toBeLessThan(0.1)
    expect(await kept(output)).toEqual(await kept(untied))
    const [before, after] = await Promise.all([openCheckpoint(untied), openCheckpoint(output)])
    expect([...after.tensors.keys()]).toEqual(expect.arrayContaining([...before.tensors.keys()]))
    await Promise.all([before.close(), after.close()])
    expect(readJson(join(output, 'config.json'))).toMatchObject({
      text_config: { tie_word_embeddings: false },
      quantization_config: {
        llm_int8_skip_modules: ['lm_head', 'model.vision_tower', 'model.multi_modal_projector'],
      },
    })
    expect(readJson(join(output, 'preprocessor_config.json'))).toEqual({})
  },
)

test('an adapter names its modules by their whole paths, so that PEFT adapts no others', async () => {
  const [outputDir, further] = [join(folder, 'adapter'), join(folder, 'further')]
  const run = { model, ...data, maxLength: 64, maxSteps: 2, threads: 1, saveStrategy: 'no' } as const
  const narrowed = { targetModules: ['q_proj', 'up_proj'], layersToTransform: [0, 2], modulesToSave: ['norm'] }
  await collect({ ...run, outputDir, ...narrowed, excludeModules: ['layers.2.mlp.up_proj'] })
  const written = readJson(join(outputDir, 'adapter_config.json')) as { modules_to_save: string[] }
  const path = String.raw`model\.language_model\.layers\.`
  expect(written).toMatchObject({
    target_modules: String.raw`${path}(0)\.(self_attn\.q_proj|mlp\.up_proj)|${path}(2)\.(self_attn\.q_proj)`,
    layers_to_transform: null,
  })
  expect(written).not.toHaveProperty('exclude_modules')
  expect(written.modules_to_save).toContain('model.language_model.norm')
  expect(written.modules_to_save).toContain('model.language_model.layers.1.self_attn.q_norm')
  // It is read again, and trained further, as what it is.
  expect(await lossOf(model, outputDir)).not.toBe(await lossOf(model))
  await collect({ ...run, adapter: outputDir, outputDir: further })
  expect(readJson(join(further, 'adapter_config.json'))).toEqual(written)
})

test('an adapter of a part that is not computed is refused', async () => {
  const adapter = join(folder, 'of-images')
  mkdirSync(adapter)
  const about = { peft_type: 'LORA', r: 2, target_modules: ['q_proj'] }
  writeFileSync(join(adapter, 'adapter_config.json'), JSON.stringify(about))
  const module = 'base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj'
  const zeros = { dtype: 'F32', data: new Uint8Array(32) } as const
  await writeSafetensors(join(adapter, 'adapter_model.safetensors'), [
    { name: `${module}.lora_A.weight`, shape: [2, 4], ...zeros },
    { name: `${module}.lora_B.weight`, shape: [4, 2], ...zeros },
  ])
  await expect(lossOf(model, adapter)).rejects.toMatchObject({
    code: 'adapter',
    message: expect.stringContaining(
      'vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight adapts a part',
    ) as string,
  })
})

describe('every weight trained', () => {
  const run = { ...data, maxLength: 64, maxSteps: 4, threads: 1, method: 'full', learningRate: 1e-3 } as const
  const outputDir = join(folder, 'full')
  const names = async (path: string): Promise<string[]> => {
    const reader = await openCheckpoint(path)
    await reader.close()
    return [...reader.tensors.keys()].sort()
  }

  test('a whole model by the names of the files, with the other parts as they were, wherever their file has gone', async () => {
    const moving = join(folder, 'moving')
    cpSync(model, moving, { recursive: true })
    for await (const event of directTasks.finetune({ ...run, model: moving, outputDir, saveSteps: 2 })) {
      if (event.type === 'step' && event.step === 1) rmSync(moving, { recursive: true })
    }
    for (const path of [outputDir, join(outputDir, 'checkpoint-2')]) {
      expect(await names(path)).toEqual(await names(model))
      expect(await kept(path)).toEqual(await kept(model))
    }
    expect(readJson(join(outputDir, 'config.json'))).toMatchObject({ model_type: 'gemma3', vision_config: {} })
    expect(await lossOf(outputDir)).toBeLessThan(await lossOf(model))
  })

  test('goes on from a checkpoint to the same weights', async () => {
    const [all, resumed] = [join(folder, 'all'), join(folder, 'resumed')]
    await collect({ ...run, model, outputDir: all, saveSteps: 2 })
    await collect({ ...run, model, outputDir: resumed, saveSteps: 2, resumeFrom: join(all, 'checkpoint-2') })
    const weights = 'model.safetensors'
    expect(sha256(join(resumed, weights))).toBe(sha256(join(all, weights)))
    expect(sha256(join(resumed, weights))).toBe(sha256(join(outputDir, weights)))
  })

  test('random weights are refused: there are none for the other parts', async () => {
    const random = join(folder, 'random')
    await expect(collect({ ...run, model, outputDir: random, init: 'random' })).rejects.toMatchObject({
      code: 'config',
      message: expect.stringContaining('what sees images would be missing') as string,
    })
    await expect(openSafetensors(join(random, 'model.safetensors'))).rejects.toThrow()
  })

  test('other parts that are FP8 are refused, since the scales would be left without a word on them', async () => {
    const fp8 = join(folder, 'fp8')
    cpSync(model, fp8, { recursive: true })
    const json = readJson(join(fp8, 'config.json')) as object
    const quantization_config = { quant_method: 'fp8', weight_block_size: null }
    writeFileSync(join(fp8, 'config.json'), JSON.stringify({ ...json, quantization_config }))
    const reader = await openCheckpoint(model)
    const tensors: TensorSource[] = []
    for (const [name, { dtype, shape }] of reader.tensors) {
      const one = { name, dtype, shape, data: await reader.read(name) }
      const count = one.data.length / 4
      const packs = images[0] === name || name.endsWith('.0.self_attn.q_proj.weight')
      if (!packs) tensors.push(one)
      else {
        const scale = new Uint8Array(Float32Array.of(1).buffer)
        tensors.push({ name, shape, dtype: 'F8_E4M3', data: new Uint8Array(count).fill(0x38) })
        tensors.push({ name: `${name}_scale_inv`, shape: [], dtype: 'F32', data: scale })
      }
    }
    await reader.close()
    await writeSafetensors(join(fp8, 'model.safetensors'), tensors, { format: 'pt' })
    expect(await lossOf(fp8)).toBeGreaterThan(0)
    await expect(collect({ ...run, model: fp8, outputDir: join(folder, 'of-fp8') })).rejects.toThrow(
      /vision_tower\.encoder\.layers\.0\.self_attn\.q_proj\.weight in F8_E4M3/,
    )
  })
})
