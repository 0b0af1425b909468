import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import {
  collect,
  figures,
  hashFolder,
  last,
  listFiles,
  makeTinyModel,
  only,
  quickstart,
  readJson,
  readMetrics,
  temporaryFolder,
  tensorHashes,
  tensorShapes,
  writeData,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const common = { method: 'full', maxLength: 96, perDeviceTrainBatchSize: 4, saveStrategy: 'no' } as const

describe.each(['bfloat16', 'float32'])('from random weights, stored as %s', (dtype) => {
  const shape = join(folder, `shape-${dtype}`)
  const outputDir = join(folder, `random-${dtype}`)
  beforeAll(async () => {
    // Only the shape and the tokenizer: there are no weights to start from.
    cpSync(quickstart, shape, { recursive: true, filter: (path) => !path.endsWith('.safetensors') })
    const config = readJson(join(shape, 'config.json')) as object
    const small = { hidden_size: 64, intermediate_size: 128, num_attention_heads: 4, num_hidden_layers: 2 }
    writeFileSync(join(shape, 'config.json'), JSON.stringify({ ...config, ...small, torch_dtype: dtype }))
    const options = {
      ...common,
      model: shape,
      ...data,
      outputDir,
      init: 'random',
      maxSteps: 20,
      learningRate: 5e-3,
      threads: 1,
    } as const
    await collect(options)
  })

  test('the loss falls from that of a guess', () => {
    const losses = only(readMetrics(outputDir), 'step').map(({ loss }) => loss)
    expect(losses).toHaveLength(20)
    expect(Math.abs(losses[0]! - Math.log(2496))).toBeLessThan(0.3)
    expect(last(losses)).toBeLessThan(losses[0]! - 2)
  })

  test('the output folder is a whole model with the loss that training ended with', async () => {
    expect(listFiles(outputDir)).toEqual([
      'config.json',
      'generation_config.json',
      'metrics.jsonl',
      'model.safetensors',
      'report.html',
      'run.json',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
    const ended = figures(last(only(readMetrics(outputDir), 'eval')))
    const found = await directTasks.evaluate({ model: outputDir, data: data.valid, maxLength: 96 })
    if (dtype === 'float32') {
      expect(figures(found)).toEqual(ended)
    } else {
      // bf16 keeps 8 bits of a weight.
      expect(found.loss).not.toBe(ended.loss)
      expect(Math.abs(found.loss - ended.loss)).toBeLessThan(0.01)
    }
  })
})

test('from pretrained weights: starts where they are, trains all of them, and leaves their folder alone', async () => {
  const outputDir = join(folder, 'pretrained')
  // With a head of its own, so that the embedding learns from its own gradient only.
  const model = await makeTinyModel(folder, { tie_word_embeddings: false })
  const before = hashFolder(model)
  const start = await directTasks.evaluate({ model, data: data.valid, maxLength: 96 })
  const config = { ...common, model, ...data, outputDir, maxSteps: 3, learningRate: 5e-3, evalOnStart: true }
  const evals = only(await collect(config), 'eval')
  expect(figures(evals[0]!)).toEqual(figures(start))
  expect(last(evals).loss).toBeLessThan(start.loss)
  expect(hashFolder(model)).toEqual(before)
  expect(tensorShapes(join(outputDir, 'model.safetensors'))).toEqual(tensorShapes(join(model, 'model.safetensors')))
  const [then, now] = [model, outputDir].map((path) => tensorHashes(join(path, 'model.safetensors')))
  expect(Object.keys(then!).filter((name) => then![name] === now![name])).toEqual([])
  expect(figures(await directTasks.evaluate({ model: outputDir, data: data.valid, maxLength: 96 }))).toEqual(
    figures(last(evals)),
  )
})
