import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { quantize, type QuantizeConfigInput } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { directTasks } from '../tasks.ts'
import {
  collect,
  evaluateByCommand,
  figures,
  flags,
  hashFolder,
  last,
  listFiles,
  lowrank,
  lowrankHere,
  makeTinyModel,
  only,
  quickstart,
  readJson,
  root,
  temporaryFolder,
  tensorShapes,
  writeData,
  writeElements,
} from './support.ts'

const folder = temporaryFolder()
const data = writeData(folder)
const nf4 = { loadIn4bit: true, bnb4bitQuantType: 'nf4', bnb4bitUseDoubleQuant: true } as const
const nf4Folder = join(folder, 'nf4')
const sharded = join(folder, 'int8')
let model = ''
let before: Record<string, string> = {}

beforeAll(async () => {
  model = await makeTinyModel(folder)
  before = hashFolder(model)
})

describe('a quantized folder', () => {
  test('has the files of a model, config.json with all it had and quantization_config', async () => {
    const { code, stdout, stderr } = await lowrank(['quantize', ...flags({ model, output: nf4Folder, json: true })])
    expect(code, stderr).toBe(0)
    const shapes = tensorShapes(join(nf4Folder, 'model.safetensors'))
    const bytes = statSync(join(nf4Folder, 'model.safetensors')).size
    const result = JSON.parse(stdout) as { outputDir: string; tensors: number; bytes: number; quantization: unknown }
    expect(result).toMatchObject({ outputDir: nf4Folder, tensors: Object.keys(shapes).length })
    expect(result.quantization).toEqual({ kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 })
    expect(bytes - result.bytes).toBeLessThan(20_000)
    expect(shapes['model.layers.0.mlp.up_proj.weight']).toEqual([1024, 1])
    expect(Object.keys(shapes).filter((name) => name.includes('.mlp.up_proj.weight.'))).toHaveLength(2 * 5)
    const names = (path: string): string[] =>
      listFiles(path).filter((name) => !/^(run\.json|metrics\.jsonl|report\.html)$/.test(name))
    expect(names(nf4Folder)).toEqual(names(model))
    const { quantization_config: found, ...config } = readJson(join(nf4Folder, 'config.json')) as Record<string, object>
    expect(config).toEqual(readJson(join(model, 'config.json')))
    const theirs = readJson(join(root, 'test/golden/quantized-nf4/config.json')) as { quantization_config: object }
    expect(found).toEqual(theirs.quantization_config)
    // transformers takes no whole number for this.
    expect(readFileSync(join(nf4Folder, 'config.json'), 'utf8')).toContain('"llm_int8_threshold": 6.0,')
    expect(hashFolder(model)).toEqual(before)
  })

  test('is evaluated as the model quantized on the way is', async () => {
    const expected = await directTasks.evaluate({ model, data: data.valid, ...nf4 })
    expect(await evaluateByCommand({ model: nf4Folder, data: data.valid })).toEqual(expected)
    // Asking for what is there is no contradiction.
    expect(await directTasks.evaluate({ model: nf4Folder, data: data.valid, ...nf4 })).toEqual(expected)
    expect((await directTasks.evaluate({ model, data: data.valid })).loss).not.toBe(expected.loss)
  })

  test('may have shards', async () => {
    await directTasks.quantize({ model, output: sharded, loadIn8bit: true, maxShardSize: '20KB' })
    expect(listFiles(sharded).filter((name) => name.includes('safetensors')).length).toBeGreaterThan(3)
    expect(existsSync(join(sharded, 'model.safetensors.index.json'))).toBe(true)
    const expected = await directTasks.evaluate({ model, data: data.valid, loadIn8bit: true })
    expect(await directTasks.evaluate({ model: sharded, data: data.valid })).toEqual(expected)
  })

  test.each(['lora', 'qlora'] as const)(
    'is trained on with method %s as the model quantized on the way is',
    async (method) => {
      const common = { ...data, method, r: 4, maxSteps: 3, learningRate: 1e-2, saveStrategy: 'no' } as const
      const folders = [`on-quantized-${method}`, `on-floats-${method}`].map((name) => join(folder, name))
      const [there = '', here = ''] = folders
      const found = await collect({ ...common, model: nf4Folder, outputDir: there })
      const expected = await collect({ ...common, method: 'qlora', model, outputDir: here })
      const losses = [found, expected].map((events) => only(events, 'step').map(({ loss }) => loss))
      expect(losses[0]).toHaveLength(3)
      expect(losses[0]).toEqual(losses[1])
      const evaluated = await directTasks.evaluate({ model: nf4Folder, adapter: there, data: data.valid })
      expect(figures(evaluated)).toEqual(figures(last(only(found, 'eval'))))
    },
  )
})

describe('refused, with nothing written:', () => {
  const output = join(folder, 'refused')

  async function refusal(args: readonly string[]): Promise<string> {
    const { code, stderr } = await lowrankHere(args)
    expect(code).toBe(2)
    expect(stderr).toMatch(/\nhint: /)
    expect(existsSync(output)).toBe(false)
    return stderr
  }

  test('the folder of the model as output', async () => {
    expect(await refusal(['quantize', ...flags({ model, output: join(model, '../tiny/.') })])).toMatch(
      /is the folder of the model/,
    )
    expect(hashFolder(model)).toEqual(before)
  })

  test('an output that is not empty', async () => {
    const full = join(folder, 'full')
    mkdirSync(full)
    writeFileSync(join(full, 'notes.txt'), 'mine')
    expect(await refusal(['quantize', ...flags({ model, output: full })])).toMatch(/full is not empty \(notes.txt\)/)
    expect(listFiles(full)).toEqual(['notes.txt'])
  })

  test('a model that is quantized already', async () => {
    const args = ['quantize', ...flags({ model: nf4Folder, output })]
    expect(await refusal(args)).toMatch(/is quantized already: 4-bit nf4 with double quantization in blocks of 64/)
  })

  test('method full on it', async () => {
    const options = { method: 'full', model: nf4Folder, train: data.train, outputDir: output, maxSteps: 1 }
    expect(await refusal(['train', ...flags(options)])).toMatch(/method full trains every weight, but .* is 4-bit nf4/)
  })

  test('another quantization than it has', async () => {
    const args = ['eval', ...flags({ model: nf4Folder, data: data.valid, loadIn8bit: true })]
    expect(await refusal(args)).toMatch(/is quantized already, 4-bit nf4 .*; asked for is 8-bit/)
  })
})

describe('nothing is left behind', () => {
  const output = join(folder, 'some/where/new')
  const config: QuantizeConfigInput = { model: quickstart, output }

  test('when it is cancelled', async () => {
    const quantized = quantize(config, { signal: AbortSignal.abort() })
    await expect(quantized).rejects.toMatchObject({ code: 'cancelled' })
    expect(existsSync(join(folder, 'some'))).toBe(false)
  })

  test('when a number of the model is none', async () => {
    const broken = join(folder, 'broken')
    cpSync(model, broken, { recursive: true })
    writeElements(join(broken, 'model.safetensors'), 'model.layers.1.mlp.up_proj.weight', NaN)
    mkdirSync(join(folder, 'given'))
    const { code, stderr } = await lowrankHere(['quantize', ...flags({ model: broken, output: join(folder, 'given') })])
    expect([code, stderr]).toEqual([
      2,
      expect.stringMatching(/tensor model.layers.1.mlp.up_proj.weight holds NaN in element 0/),
    ])
    expect(listFiles(join(folder, 'given'))).toEqual([])
    expect(existsSync(join(folder, 'given'))).toBe(true)
    rmSync(broken, { recursive: true })
  })

  test.skipIf(process.platform === 'win32')('when a file cannot grow', () => {
    const before = hashFolder(quickstart)
    const args = [join(root, 'dist/cli.js'), 'quantize', ...flags({ model: quickstart, output })]
    const command = 'ulimit -f 200; exec "$0" "$@"'
    const { status, stderr } = spawnSync('bash', ['-c', command, process.execPath, ...args], { encoding: 'utf8' })
    expect(stderr).toMatch(/error: cannot write .*model\.safetensors: EFBIG/)
    expect(status).toBe(1)
    expect(existsSync(join(folder, 'some'))).toBe(false)
    expect(hashFolder(quickstart)).toEqual(before)
  })
})
