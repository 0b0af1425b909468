import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { exportModel, type ExportOptions, type ExportResult, type TrainConfigInput } from 'lowrank'
import { beforeAll, describe, expect, test } from 'vitest'
import { commandNamed } from '../../src/commands/options.fixture.ts'
import type { ExportInput } from '../../src/export/exporter.ts'
import { exportNames } from '../../src/export/forms.ts'
import { exporters } from '../../src/export/index.ts'
import { GgufFile } from '../../src/formats/gguf/file.ts'
import { openSafetensors } from '../../src/formats/safetensors.ts'
import { openWeights } from '../../src/model/sources/checkpoint.ts'
import { type ExportConfig, runExport } from '../../src/tasks/export.ts'
import { resultOf } from '../../src/util/task.ts'
import { directTasks } from '../tasks.ts'
import {
  collect,
  flags,
  hashFolder,
  listFiles,
  lowrankHere,
  makeTinyModel,
  quickstart,
  readJson,
  root,
  startLowrank,
  temporaryFolder,
  writeData,
} from './support.ts'

/*
 * What every form of an export promises, whoever adds it; and what is particular to each.
 */

const folder = temporaryFolder()
const data = writeData(folder)
const at = (name: string): string => join(folder, name)
let [model, adapter] = ['', '']

const common = { ...data, r: 4, maxSteps: 3, maxLength: 64, learningRate: 2e-2, saveStrategy: 'no' } as const

async function train(name: string, options: Partial<TrainConfigInput> = {}): Promise<string> {
  await collect({ ...common, model, outputDir: at(name), ...options })
  return at(name)
}

/** The task in this thread. */
async function exported(config: ExportOptions, cancelled = (): boolean => false): Promise<ExportResult> {
  const parsed = commandNamed('export').options.parse(config) as ExportConfig
  return resultOf(runExport(parsed, { cancelled }))
}

const refusal = (config: ExportOptions): Promise<string> =>
  exported(config).then(
    () => 'nothing was refused',
    (error: Error & { hint?: string }) => `${error.message}\n${error.hint ?? ''}`,
  )

beforeAll(async () => {
  model = await makeTinyModel(folder)
  adapter = await train('adapter')
})

const outputOf = (form: string, name: string): string => at(`${name}-${form}${form.startsWith('gguf') ? '.gguf' : ''}`)

const own = Object.entries(exporters)

test('the table has a line for every form but the one that merge writes', () => {
  expect([...own.map(([name]) => name), 'merged'].sort()).toEqual([...exportNames].sort())
})

describe.each(exportNames)('--to %s', (to) => {
  test('writes its files and nothing else, leaves what it reads, and says what it found', async () => {
    const before = [hashFolder(model), hashFolder(adapter)]
    const output = outputOf(to, 'whole')
    const { code, stdout, stderr } = await lowrankHere(['export', ...flags({ model, adapter, to, output })])
    expect(code, stderr).toBe(0)
    expect(stdout).toMatch(new RegExp(`^saved ${output}  ${to}  `))
    if (to !== 'merged') expect(stdout).toMatch(/read again: \d+ tensors as they were to be/)
    expect(existsSync(output)).toBe(true)
    expect([hashFolder(model), hashFolder(adapter)]).toEqual(before)
    expect(readdirSync(dirname(output)).filter((name) => name.endsWith('.tmp') || name.endsWith('.lock'))).toEqual([])
  })

  test('never replaces what is there', async () => {
    const output = outputOf(to, 'taken')
    const file = output.endsWith('.gguf') ? output : join(output, 'mine.txt')
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, 'mine')
    expect(await refusal({ model, adapter, to, output })).toMatch(/output: .*(is there already|is not empty)/)
    expect(readFileSync(file, 'utf8')).toBe('mine')
  })

  test('leaves nothing when it is cancelled', async () => {
    const before = listFiles(folder)
    const run = exported({ model, adapter, to, output: outputOf(to, `${to}/where/cancelled`) }, () => true)
    await run.then(
      ({ checked }) => {
        // An adapter is written before anybody can ask.
        expect(['peft', 'gguf-lora', 'mlx']).toContain(to)
        expect(checked?.tensors).toBeGreaterThan(0)
      },
      (error: unknown) => {
        expect(error).toMatchObject({ code: 'cancelled' })
        expect(listFiles(folder)).toEqual(before)
        expect(existsSync(at(to))).toBe(false)
      },
    )
  })
})

/** What a task gives an exporter. */
const inputFor = (dtype: ExportInput['dtype']): ExportInput => ({
  model,
  adapter: undefined,
  quantization: undefined,
  name: 'tiny',
  base: { name: model },
  weights: () => openWeights(model),
  dtype,
  threads: 1,
  cancelled: () => false,
  report: () => undefined,
})

describe.each(own)('%s, as a line of the table', (form, exporter) => {
  test.each(exporter.dtypes)('%s: what was written is found again, and what was changed is seen', async (dtype) => {
    const input = { ...inputFor(dtype), ...(exporter.needs.includes('adapter') ? { adapter } : {}) }
    const path = outputOf(form, `line-${dtype}`)
    if (exporter.makes === 'folder') mkdirSync(path)
    const { files } = await exporter.write(input, path)
    const written = exporter.makes === 'folder' ? listFiles(path) : [path.split('/').at(-1)]
    expect(files.map(({ name }) => name).sort()).toEqual(written)
    const { tensors, logits } = await exporter.check(input, path)
    expect(tensors).toBeGreaterThanOrEqual(8)
    if (exporter.needs.includes('model') && exporter.makes === 'file' && form !== 'gguf-lora') {
      expect(logits?.texts).toBe(4)
    }
    // A bit in the last tensor.
    const weights = files.find(({ name }) => /\.(gguf|safetensors|onnx_data)$/.test(name))
    const file = exporter.makes === 'folder' ? join(path, weights!.name) : path
    const bytes = readFileSync(file)
    const place = bytes.length - 72
    bytes[place] = bytes[place]! ^ 0x40
    writeFileSync(file, bytes)
    await expect(exporter.check(input, path)).rejects.toThrow()
  })
})

describe('gguf', () => {
  test('is a model that computes what model and adapter do', async () => {
    const output = at('same.gguf')
    await exported({ model, adapter, to: 'gguf', dtype: 'f32', output })
    const lossOf = async (options: { model: string; adapter?: string }): Promise<number> =>
      (await directTasks.evaluate({ ...options, data: data.valid, maxLength: 64 })).loss
    const [found, expected, base] = [
      await lossOf({ model: output }),
      await lossOf({ model, adapter }),
      await lossOf({ model }),
    ]
    expect(Math.abs(found - expected)).toBeLessThan(1e-5)
    expect(Math.abs(found - base)).toBeGreaterThan(1e-3)
  })

  test('of a GGUF file is the same file again', async () => {
    const [first, second] = [at('first.gguf'), at('second.gguf')]
    await exported({ model, to: 'gguf', dtype: 'f32', output: first })
    await exported({ model: first, to: 'gguf', dtype: 'f32', output: second })
    const [a, b] = [await GgufFile.open(first), await GgufFile.open(second)]
    for (const name of a.tensors.keys()) expect(await b.read(name), name).toEqual(await a.read(name))
    const others = a.metadata.keys.filter((key) => key !== 'general.name')
    for (const key of others) expect(b.metadata.get(key), key).toEqual(a.metadata.get(key))
    await Promise.all([a.close(), b.close()])
  })

  test('a head that the adapter changes becomes one of its own', async () => {
    const tied = await makeTinyModel(at('tied'.padEnd(6, '/')), { tie_word_embeddings: true })
    const headed = await train('headed', { model: tied, modulesToSave: ['lm_head'] })
    const output = at('headed.gguf')
    const { checked } = await exported({ model: tied, adapter: headed, to: 'gguf', dtype: 'f32', output })
    const file = await GgufFile.open(output)
    expect(file.tensors.has('output.weight')).toBe(true)
    expect(checked?.logits?.sameFirst).toBe(4)
    await file.close()
    for (const to of ['gguf-lora', 'mlx'] as const) {
      expect(await refusal({ model: tied, adapter: headed, to, output: outputOf(to, 'headed-lora') })).toMatch(
        /has the whole of lm_head.weight, which .* cannot hold\n.*--to gguf/s,
      )
    }
  })

  test('a model that GGUF has no way to describe is refused before anything is written', async () => {
    const odd = at('odd')
    cpSync(model, odd, { recursive: true })
    const path = join(odd, 'config.json')
    const config = readJson(path) as Record<string, unknown>
    writeFileSync(path, JSON.stringify({ ...config, rope_scaling: { rope_type: 'dynamic', factor: 2 } }))
    const output = at('odd.gguf')
    expect(await refusal({ model: odd, to: 'gguf', output })).toMatch(/cannot say .*rope scaling "dynamic"/)
    writeFileSync(path, JSON.stringify({ ...config, hidden_act: 'gelu' }))
    expect(await refusal({ model: odd, to: 'gguf', output })).toMatch(/cannot say .*activation "gelu"/)
    writeFileSync(path, JSON.stringify(config))
    const tokenizer = join(odd, 'tokenizer.json')
    const json = readJson(tokenizer) as Record<string, unknown>
    writeFileSync(tokenizer, JSON.stringify({ ...json, normalizer: { type: 'Lowercase' } }))
    expect(await refusal({ model: odd, to: 'gguf', output })).toMatch(/tokenizer.json: texts are cut in a way/)
    expect(existsSync(output)).toBe(false)
  })
})

describe('gguf-lora and mlx', () => {
  test('ranks and factors of single modules are folded in: the products stay what they are', async () => {
    const mixed = await train('mixed', {
      r: 4,
      loraAlpha: 8,
      useRslora: true,
      targetModules: ['q_proj', 'k_proj', 'down_proj'],
      rankPattern: { k_proj: 2 },
      alphaPattern: { down_proj: 3 },
    })
    const [gguf, mlx] = [at('mixed.gguf'), at('mixed-mlx')]
    await exported({ model, adapter: mixed, to: 'gguf-lora', output: gguf })
    await exported({ model, adapter: mixed, to: 'mlx', output: mlx })
    const reader = await openSafetensors(join(mixed, 'adapter_model.safetensors'))
    const peft = async (path: string): Promise<Float32Array> =>
      new Float32Array((await reader.read(`base_model.model.model.layers.1.${path}.weight`)).buffer)
    const file = await GgufFile.open(gguf)
    const alpha = file.metadata.number('adapter.lora.alpha') ?? NaN
    const mlxReader = await openSafetensors(join(mlx, 'adapters.safetensors'))
    const { lora_parameters: parameters } = readJson(join(mlx, 'adapter_config.json')) as {
      lora_parameters: { rank: number; scale: number; keys: string[] }
    }
    expect(parameters.keys).toEqual(['mlp.down_proj', 'self_attn.k_proj', 'self_attn.q_proj'])
    // By hand, as PEFT scales: alpha / sqrt(r).
    for (const [path, tensor, r, scale] of [
      ['self_attn.q_proj', 'attn_q', 4, 8 / 2],
      ['self_attn.k_proj', 'attn_k', 2, 8 / Math.SQRT2],
      ['mlp.down_proj', 'ffn_down', 4, 3 / 2],
    ] as const) {
      const [a, b] = [await peft(`${path}.lora_A`), await peft(`${path}.lora_B`)]
      const [inner, out] = [a.length / r, b.length / r]
      const product = (at: number, i: number): number => {
        let sum = 0
        for (let k = 0; k < r; k++) sum += b[at * r + k]! * a[k * inner + i]!
        return scale * sum
      }
      const found = async (suffix: string): Promise<Float32Array> =>
        new Float32Array((await file.read(`blk.1.${tensor}.weight.${suffix}`)).buffer)
      const [ga, gb] = [await found('lora_a'), await found('lora_b')]
      const [ma, mb] = await Promise.all(
        ['lora_a', 'lora_b'].map(
          async (part) => new Float32Array((await mlxReader.read(`model.layers.1.${path}.${part}`)).buffer),
        ),
      )
      const heads = tensor === 'attn_q' ? 4 : tensor === 'attn_k' ? 2 : 0
      const half = heads === 0 ? 1 : out / heads / 2
      for (let row = 0; row < out; row++) {
        // llama.cpp has the rows of the two halves of a head by turns.
        const head = heads === 0 ? 0 : Math.floor(row / (2 * half))
        const place = row - head * 2 * half
        const stored = heads === 0 ? row : head * 2 * half + (place < half ? 2 * place : 2 * (place - half) + 1)
        for (let i = 0; i < inner; i += 5) {
          let [sum, other] = [0, 0]
          for (let k = 0; k < r; k++) sum += gb[stored * r + k]! * ga[k * inner + i]!
          const { rank } = parameters
          for (let k = 0; k < rank; k++) other += ma![i * rank + k]! * mb![k * out + row]!
          const wanted = product(row, i)
          const most = 1e-5 * Math.abs(wanted) + 1e-8
          expect(Math.abs((alpha / r) * sum - wanted), `${path} ${row} ${i}`).toBeLessThanOrEqual(most)
          expect(Math.abs(parameters.scale * other - wanted), `mlx ${path} ${row} ${i}`).toBeLessThanOrEqual(most)
        }
      }
    }
    await Promise.all([reader.close(), file.close(), mlxReader.close()])
  })

  test('an adapter with biases is refused, with the way out', async () => {
    const biased = await train('biased', { bias: 'lora_only', targetModules: ['q_proj'] })
    for (const to of ['gguf-lora', 'mlx'] as const) {
      expect(await refusal({ model, adapter: biased, to, output: outputOf(to, 'biased') })).toMatch(
        /has the whole of .*q_proj.bias, which .* cannot hold\n.*--to gguf/s,
      )
    }
  })
})

describe('refused, with nothing written:', () => {
  test.each<[string, () => Partial<ExportOptions>, RegExp]>([
    ['neither model nor adapter', () => ({ model: undefined, adapter: undefined, to: 'gguf' }), /neither is given/],
    ['no adapter', () => ({ adapter: undefined, to: 'mlx' }), /adapter: mlx needs one/],
    ['another dtype', () => ({ to: 'mlx', dtype: 'q8_0' }), /dtype: mlx does not have q8_0 \(it has f32, f16, bf16\)/],
    ['another extension', () => ({ to: 'gguf', output: at('refused.bin') }), /does not end with .gguf/],
    ['a folder instead of a file', () => ({ to: 'gguf', output: model }), /the model itself|is a folder/],
    ['the adapter as output', () => ({ to: 'peft', output: adapter }), /is the adapter itself/],
    ['another model', () => ({ model: quickstart, to: 'gguf' }), /was trained on another model/],
    ['a scale', () => ({ adapter: `${adapter}:0.5`, to: 'gguf' }), /without a scale|adapter/],
  ])('%s', async (_, options, message) => {
    const before = listFiles(folder)
    const output = at('refused.gguf')
    expect(await refusal({ model, adapter, output, to: 'gguf', ...options() })).toMatch(message)
    expect(listFiles(folder)).toEqual(before)
  })
})

describe('nothing half-written', () => {
  test.skipIf(process.platform === 'win32')('when a file cannot grow', () => {
    const output = at('full/disk.gguf')
    const args = [join(root, 'dist/cli.js'), 'export', ...flags({ model: quickstart, to: 'gguf', output })]
    const command = 'ulimit -f 200; exec "$0" "$@"'
    const { status, stderr } = spawnSync('bash', ['-c', command, process.execPath, ...args], { encoding: 'utf8' })
    expect(stderr).toMatch(/error: cannot write .*EFBIG/)
    expect(status).toBe(1)
    expect(existsSync(at('full'))).toBe(false)
  })

  test('when the process is killed; the next one removes what it left', async () => {
    const parent = at('killed')
    mkdirSync(parent)
    const output = join(parent, 'model.gguf')
    const args = ['export', ...flags({ model: quickstart, to: 'gguf', dtype: 'f32', output })]
    const { child, ended } = startLowrank(args)
    const begun = (): boolean => readdirSync(parent).some((name) => name.endsWith('.tmp'))
    while (!begun() && child.exitCode === null) await sleep(2)
    child.kill('SIGKILL')
    await ended
    expect(readdirSync(parent).some((name) => name.endsWith('.tmp'))).toBe(true)
    expect(existsSync(output)).toBe(false)
    await exported({ model: quickstart, to: 'gguf', dtype: 'f32', output })
    expect(readdirSync(parent)).toEqual(['model.gguf'])
  })

  test('by the API, which computes in a thread of its own', async () => {
    const messages: string[] = []
    const output = at('api.gguf')
    const result = await exportModel(
      { model, adapter, to: 'gguf-lora', output },
      { onStatus: (one) => messages.push(one) },
    )
    expect(result).toMatchObject({ output, to: 'gguf-lora', dtype: 'f32', notes: [] })
    expect(messages).toContain('checking: every tensor')
  })
})
