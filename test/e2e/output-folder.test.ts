import { cpSync, existsSync, mkdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { finetune, quantize, replay, type TrainConfigInput, type TrainEvent } from 'lowrank'
import { beforeAll, expect, test } from 'vitest'
import {
  collect,
  hashFolder,
  listFiles,
  lowrank,
  makeTinyModel,
  only,
  readJson,
  sha256,
  temporaryFolder,
  writeData,
  writeElements,
} from './support.ts'

// What was in a folder before a run is there after it, unless a run of Lowrank wrote it or it was asked for.

const folder = temporaryFolder()
const data = writeData(folder)
let tiny: string
beforeAll(async () => {
  tiny = await makeTinyModel(folder)
})

const short = { maxLength: 64, maxSteps: 2, saveSteps: 1, perDeviceTrainBatchSize: 2 } as const
const config = (outputDir: string, changes: Partial<TrainConfigInput> = {}): TrainConfigInput => ({
  ...short,
  model: tiny,
  train: data.train,
  outputDir,
  ...changes,
})

/** A folder of its own for a test, with these files. */
function made(name: string, files: Record<string, string>): string {
  const path = join(folder, name)
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(path, file, '..'), { recursive: true })
    writeFileSync(join(path, file), text)
  }
  return path
}

async function refused(options: TrainConfigInput, message: RegExp): Promise<void> {
  const before = hashFolder(realpathSync(options.outputDir))
  await expect(collect(options)).rejects.toMatchObject({
    code: 'config',
    message: expect.stringMatching(message) as string,
  })
  expect(hashFolder(realpathSync(options.outputDir))).toEqual(before)
}

test.each(['lora', 'full'] as const)(
  'the folder of the model is no output folder, by whatever path (method %s)',
  async (method) => {
    const model = join(folder, `base-${method}`)
    cpSync(tiny, model, { recursive: true })
    const link = join(folder, `link-${method}`)
    symlinkSync(model, link)
    for (const outputDir of [model, link, `${model}/../base-${method}/.`]) {
      await refused(config(outputDir, { model, method }), /is the folder that the run reads \(model /)
    }
    await refused(config(model, { model: link, method }), /is the folder that the run reads \(model /)
  },
)

test('nor is that of the adapter that is trained on, or of a checkpoint that a run would remove', async () => {
  const outputDir = join(folder, 'adapter')
  await collect(config(outputDir))
  await refused(config(outputDir, { adapter: outputDir }), /is the folder that the run reads \(adapter /)
  await refused(config(outputDir, { adapter: join(outputDir, 'checkpoint-1') }), /which starting it would remove/)
})

test('nor one where the data have the name of a file that the run writes', async () => {
  const outputDir = made('data-inside', { 'metrics.jsonl': readFileSync(data.train, 'utf8') })
  await refused(
    config(outputDir, { train: join(outputDir, 'metrics.jsonl') }),
    /would replace metrics.jsonl, which it reads \(train .*metrics.jsonl/,
  )
})

test('nor one where the configuration has such a name', async () => {
  const text = JSON.stringify(config(join(folder, 'config-inside')))
  const outputDir = made('config-inside', { 'run.json': text, 'mine.yaml': text })
  const link = join(folder, 'link.yaml')
  symlinkSync(join(outputDir, 'run.json'), link)
  for (const path of [join(outputDir, 'run.json'), link]) {
    const { code, stderr } = await lowrank(['train', path, '--overwrite-output-dir'])
    expect(stderr).toContain(`the run would replace run.json, which it reads (configFile ${path})`)
    expect(code).toBe(2)
    expect(readFileSync(join(outputDir, 'run.json'), 'utf8')).toBe(text)
  }
  const { code, stderr } = await lowrank(['train', join(outputDir, 'mine.yaml'), '--overwrite-output-dir'])
  expect(code, stderr).toBe(0)
  expect(readFileSync(join(outputDir, 'mine.yaml'), 'utf8')).toBe(text)
  // What it recorded is read by whoever computes a step again.
  expect(await replay(outputDir, { step: 2 })).toMatchObject({ equal: true })
})

test('the data may lie in the output folder by another name', async () => {
  const outputDir = made('data-beside', { 'mine.jsonl': readFileSync(data.train, 'utf8') })
  await collect(config(outputDir, { train: join(outputDir, 'mine.jsonl') }))
  expect(readFileSync(join(outputDir, 'mine.jsonl'))).toEqual(readFileSync(data.train))
})

test.each([
  ['the tokenizer of another model', { 'tokenizer.json': '{"a":1}' }, /tokenizer.json/],
  ['a record that is none of ours', { 'run.json': '{"mine":1}', 'report.html': 'mine' }, /report.html, run.json/],
  ['a checkpoint of transformers', { 'checkpoint-500/trainer_state.json': '{"global_step":500}' }, /checkpoint-500/],
  [
    'an adapter of PEFT',
    { 'adapter_config.json': '{}', 'adapter_model.safetensors': 'x' },
    /adapter_config.json, adapter_m/,
  ],
])('%s is neither replaced nor removed', async (name, files, named) => {
  const outputDir = made(name, files)
  for (const options of [{}, { resume: true }]) await refused(config(outputDir, options), named)
})

test('nor is what somebody has put beside an earlier run', async () => {
  const outputDir = join(folder, 'beside')
  await collect(config(outputDir))
  const { files } = readJson(join(outputDir, 'run.json')) as { files: string[] }
  expect(files).toContain('adapter_model.safetensors')
  expect(files).not.toContain('model.safetensors')
  writeFileSync(join(outputDir, 'model.safetensors'), 'mine')
  await refused(config(outputDir, { method: 'full' }), /holds what no run of Lowrank wrote: model.safetensors/)
  // An adapter does not stand in its way, and neither is removed for it.
  await collect(config(outputDir))
  expect(readFileSync(join(outputDir, 'model.safetensors'), 'utf8')).toBe('mine')
  rmSync(join(outputDir, 'model.safetensors'))
  await collect(config(outputDir, { method: 'full', maxShardSize: '100KB' }))
  expect(existsSync(join(outputDir, 'adapter_model.safetensors'))).toBe(false)
  // A part of a model that no run of ours wrote is not among those that it replaces.
  const part = join(outputDir, 'model-00001-of-00001.safetensors')
  writeFileSync(part, 'mine')
  await refused(config(outputDir, { method: 'full' }), /wrote: model-00001-of-00001.safetensors$/)
  rmSync(part)
  await collect(config(outputDir, { method: 'full' }))
  expect(listFiles(outputDir).filter((name) => name.startsWith('model'))).toEqual(['model.safetensors'])
})

test('unless that was asked for', async () => {
  const outputDir = made('asked', {
    'tokenizer.json': '{}',
    'README.md': 'mine',
    'checkpoint-500/model.safetensors': 'x',
  })
  await collect(config(outputDir, { overwriteOutputDir: true }))
  expect(sha256(join(outputDir, 'tokenizer.json'))).toBe(sha256(join(tiny, 'tokenizer.json')))
  expect(readFileSync(join(outputDir, 'README.md'), 'utf8')).toContain('LoRA adapter')
  expect(readFileSync(join(outputDir, 'checkpoint-500/model.safetensors'), 'utf8')).toBe('x')
})

test('a README.md of somebody is left, and that is said; ours is replaced until somebody changes it', async () => {
  const outputDir = made('readme', { 'README.md': '# My project', 'package.json': '{}' })
  const readme = join(outputDir, 'README.md')
  const warnings = (events: TrainEvent[]): string[] => only(events, 'warning').map(({ message }) => message)
  expect(warnings(await collect(config(outputDir))).join()).toContain(`${readme} was not written by Lowrank`)
  expect(readFileSync(readme, 'utf8')).toBe('# My project')
  rmSync(readme)
  await collect(config(outputDir))
  const ours = readFileSync(readme, 'utf8')
  expect(warnings(await collect(config(outputDir, { learningRate: 0.1 }))).join()).not.toContain(readme)
  expect(readFileSync(readme, 'utf8')).not.toBe(ours)
  writeFileSync(readme, `${ours}changed`)
  await collect(config(outputDir))
  expect(readFileSync(readme, 'utf8')).toBe(`${ours}changed`)
  expect(readFileSync(join(outputDir, 'package.json'), 'utf8')).toBe('{}')
})

test('of two runs into one folder, the second is refused, and the first unharmed', async () => {
  const outputDir = join(folder, 'both')
  for await (const event of finetune(config(outputDir, { maxSteps: 5000, saveSteps: 50 }))) {
    if (event.type !== 'save') continue
    await expect(collect(config(outputDir))).rejects.toThrow(/another run writes to .*both: process \d+ does so since/)
    break
  }
  // The first ended as one that is cancelled.
  expect(listFiles(outputDir)).toContain('checkpoint-50/trainer_state.json')
  expect(readJson(join(outputDir, 'run.json'))).toMatchObject({ status: 'cancelled' })
  expect(listFiles(outputDir)).not.toContain('.lowrank.lock')
})

test('a refused run leaves no folder that it made', async () => {
  const outputDir = join(folder, 'a/b/c')
  await expect(collect(config(outputDir, { targetModules: ['nothing'] }))).rejects.toThrow('targetModules')
  expect(existsSync(join(folder, 'a'))).toBe(false)
})

test('the base model may be gone when the run ends', async () => {
  for (const method of ['lora', 'full'] as const) {
    const model = join(folder, `leaving-${method}`)
    cpSync(tiny, model, { recursive: true })
    const outputDir = join(folder, `orphan-${method}`)
    for await (const event of finetune(config(outputDir, { model, method }))) {
      if (event.type === 'step' && event.step === 1) rmSync(model, { recursive: true })
    }
    expect(sha256(join(outputDir, 'tokenizer.json'))).toBe(sha256(join(tiny, 'tokenizer.json')))
    expect(readJson(join(outputDir, 'run.json'))).toMatchObject({ status: 'done' })
  }
})

test('a link out of the model folder is not copied; one into the blobs of the hub is', async () => {
  const snapshot = join(folder, 'models--a--b/snapshots/0123')
  const blobs = join(folder, 'models--a--b/blobs')
  mkdirSync(blobs, { recursive: true })
  cpSync(tiny, snapshot, { recursive: true })
  cpSync(join(tiny, 'tokenizer.json'), join(blobs, 'abc'))
  rmSync(join(snapshot, 'tokenizer.json'))
  symlinkSync('../../blobs/abc', join(snapshot, 'tokenizer.json'))
  writeFileSync(join(folder, 'secret'), 'secret')
  symlinkSync(join(folder, 'secret'), join(snapshot, 'merges.txt'))
  symlinkSync('/dev/zero', join(snapshot, 'vocab.json'))
  const outputDir = join(folder, 'linked')
  const events = await collect(config(outputDir, { model: snapshot, maxSteps: 1 }))
  const said = only(events, 'warning').map(({ message }) => message)
  expect(said).toEqual([
    expect.stringContaining('vocab.json is a link out of the folder (to /dev/zero)'),
    expect.stringContaining('merges.txt is a link out of the folder'),
  ])
  expect(listFiles(outputDir).filter((path) => /merges|vocab/.test(path))).toEqual([])
  expect(sha256(join(outputDir, 'tokenizer.json'))).toBe(sha256(join(tiny, 'tokenizer.json')))
  const output = join(folder, 'linked-quantized')
  await quantize({ model: snapshot, output })
  expect(listFiles(output).filter((path) => /merges|vocab/.test(path))).toEqual([])
})

test('what was learned is saved when something else goes wrong', async () => {
  const outputDir = join(folder, 'rescued')
  const model = join(folder, 'large')
  cpSync(tiny, model, { recursive: true })
  writeElements(join(model, 'model.safetensors'), 'model.layers.0.mlp.up_proj.weight', 70000, { at: 9 })
  const run = finetune(config(outputDir, { model, method: 'full', saveDtype: 'f16', saveStrategy: 'no' }))
  const events: TrainEvent[] = []
  const error: unknown = await (async () => {
    for await (const event of run) events.push(event)
  })().catch((found: unknown) => found)
  expect(error).toMatchObject({ code: 'config', message: expect.stringContaining('too large for F16') as string })
  expect(only(events, 'save').map(({ path }) => path)).toEqual([join(outputDir, 'checkpoint-2')])
  const record = readJson(join(outputDir, 'run.json')) as { files: string[] }
  expect(record).toMatchObject({ status: 'failed' })
  // The model was not written: one that lies there now is somebody's.
  expect(record.files).toEqual(['metrics.jsonl', 'report.html', 'run.json'])
})

test('a path that is too long is found before anything is computed', async () => {
  const outputDir = join(folder, ...Array.from({ length: 19 }, () => 'd'.repeat(200)), 'e'.repeat(190))
  const told: TrainEvent[] = []
  const run = finetune(config(outputDir))
  await expect(
    (async () => {
      for await (const event of run) told.push(event)
    })(),
  ).rejects.toMatchObject({ code: 'io', message: expect.stringContaining('ENAMETOOLONG') as string })
  expect(told).toEqual([])
})
