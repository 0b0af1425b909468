import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { PlanConfigInput, PlannedVariant, PlanResult, TrainConfigInput } from 'lowrank'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ownPrices } from '../../src/plan/price-list.ts'
import { readPrices } from '../../src/plan/prices.ts'
import { directTasks } from '../tasks.ts'
import { writeAsGguf } from './gguf-model.ts'
import { StandIn } from './hub-server.ts'
import {
  collect,
  listFiles,
  lowrankHere,
  makeTinyModel,
  only,
  readJson,
  root,
  temporaryFolder,
  writeData,
} from './support.ts'

// What a plan says is what runs do: weights, bytes of memory that are planned, bytes of files, steps.

const folder = temporaryFolder()
const { train } = writeData(folder)
let model: string

beforeAll(async () => {
  model = await makeTinyModel(folder)
})

const shared = { perDeviceTrainBatchSize: 4, maxLength: 96, ram: '8GB', probe: false } as const
const planned = async (config: Partial<PlanConfigInput> = {}): Promise<PlanResult> =>
  directTasks.plan({ model, ...shared, ...config })

function variant({ variants }: PlanResult, method: string, activations = 'keep'): PlannedVariant {
  const found = variants.find((one) => one.method === method && one.activations === activations)
  if (found === undefined) throw new Error(`no ${method}, ${activations}`)
  return found
}

const lora: Partial<TrainConfigInput> = { r: 4, targetModules: ['q_proj', 'down_proj'], bias: 'lora_only' }

interface Case {
  readonly name: string
  readonly method: 'full' | 'lora' | 'qlora' | 'qlora-8bit'
  readonly options?: Partial<TrainConfigInput>
  /** What makes a run of it. */
  readonly run?: Partial<TrainConfigInput>
}

const cases: readonly Case[] = [
  { name: 'lora', method: 'lora' },
  { name: 'lora with biases on some modules', method: 'lora', options: lora },
  { name: 'lora with the embedding', method: 'lora', options: { modulesToSave: ['embed_tokens'] } },
  { name: 'qlora', method: 'qlora', options: lora },
  { name: 'qlora-8bit', method: 'qlora-8bit', options: lora, run: { method: 'qlora', loadIn8bit: true } },
  { name: 'full', method: 'full', options: { optim: 'adamw-8bit' } },
  { name: 'full in shards', method: 'full', options: { maxShardSize: 20_000, saveDtype: 'bf16' } },
]

test.each(cases)(
  '$name: weights, memory, files and steps are those of the run',
  async ({ name, method, options, run }) => {
    for (const activations of ['keep', 'recompute'] as const) {
      const result = await planned({ ...options, train, methods: [method] })
      const { trainableParameters, memory, artifact } = variant(result, method, activations)
      const outputDir = join(folder, `${name}-${activations}`)
      const { ram, probe: _, ...common } = shared
      const events = await collect({
        model,
        train,
        ...common,
        memory: ram,
        outputDir,
        ...(method === 'qlora-8bit' ? {} : { method }),
        ...options,
        ...run,
        activations,
        saveStrategy: 'no',
      })
      const [plan] = only(events, 'plan')
      expect(trainableParameters).toBe(plan?.trainableParameters)
      expect(memory.expected).toBe(plan?.memory.expected)
      expect(memory.items).toEqual(plan?.memory.items)
      expect(result.work.steps).toBe(plan?.steps)
      const weights = readdirSync(outputDir).filter((file) => /safetensors/.test(file))
      const sizes = weights.map((file) => ({ name: file, bytes: statSync(join(outputDir, file)).size }))
      expect(artifact.files.toSorted((a, b) => (a.name < b.name ? -1 : 1))).toEqual(sizes)
      if (name === 'full in shards') expect(sizes.length).toBeGreaterThan(3)
    }
  },
)

test('a bound decides what fits, and the largest micro-batch is the largest', async () => {
  const roomy = await planned({ maxLength: 512 })
  const { memory, largest } = variant(roomy, 'lora', 'recompute')
  const bound = Math.ceil(memory.expected)
  const tight = await planned({ maxLength: 512, ram: bound, methods: ['lora'] })
  expect(variant(tight, 'lora', 'recompute').fits).toBe(true)
  expect(variant(tight, 'lora', 'keep').fits).toBe(false)
  expect(tight.recommendation).toMatchObject({ method: 'lora', activations: 'recompute' })
  const own = variant(tight, 'lora', 'recompute').largest
  expect(own?.length).toBe(512)
  expect(own?.batch).toBeLessThan(largest?.batch ?? 0)
  const at = async (batch: number): Promise<boolean> => {
    const found = await planned({ maxLength: 512, ram: bound, methods: ['lora'], perDeviceTrainBatchSize: batch })
    return variant(found, 'lora', 'recompute').fits
  }
  expect([await at(own?.batch ?? 0), await at((own?.batch ?? 0) + 1)]).toEqual([true, false])
  const none = await planned({ ram: '1MB' })
  expect(none.recommendation.method).toBeUndefined()
  expect(none.recommendation.reasons.at(-1)).toContain('nothing fits into 1 MB: the smallest')
})

test('time and cost follow from the seconds of a step', async () => {
  const result = await planned({
    examples: 100,
    numTrainEpochs: 2,
    stepSeconds: 3,
    pricePerHour: 0.5,
    methods: ['lora'],
  })
  expect(result.work).toMatchObject({ steps: 50, examples: 100, tokens: 9600 })
  expect(variant(result, 'lora').time).toEqual({ stepSeconds: 3, seconds: 150 })
  expect(variant(result, 'lora').cost?.amount).toBeCloseTo((0.5 * 150) / 3600, 12)
  const listed = variant(await planned({ examples: 100, stepSeconds: 3, methods: ['lora'] }), 'lora').cost
  expect(listed).toMatchObject({ perHour: 0.2, machine: '4 CPU cores, 16 GB' })
  expect(await readPrices(join(root, 'examples/prices.json'))).toEqual(ownPrices)
  const wrong = join(folder, 'prices.json')
  writeFileSync(
    wrong,
    '{"date":"2026-11-27","source":"a","currency":"USD","machines":[{"name":"b","perHour":-1,"memoryGB":2}]}',
  )
  await expect(planned({ prices: wrong })).rejects.toThrow(`${wrong}: machines.0.perHour: `)
})

test('the probe measures this machine', async () => {
  const { variants } = await planned({ train, probe: true, methods: ['lora', 'full'] })
  for (const { time } of variants) expect(time?.stepSeconds).toBeGreaterThan(0)
  const seconds = variants.map(({ time }) => time?.seconds ?? 0)
  expect(seconds.every((one) => one > 0 && one < 600)).toBe(true)
})

test('for a GPU the figures follow from the formula that is named', async () => {
  const result = await planned({ ram: undefined, gpu: '24GB', methods: ['full', 'qlora'] })
  expect(result.machine).toMatchObject({
    kind: 'gpu',
    bytes: 24e9,
    formula: expect.stringContaining('an estimate') as string,
  })
  const { trainableParameters, memory } = variant(result, 'full')
  const part = (what: string): number => memory.items.find((item) => item.what === what)?.bytes ?? 0
  expect(part('trained weights') + part('gradients') + part('optimizer')).toBe(16 * trainableParameters)
  expect(variant(result, 'full', 'recompute').memory.expected).toBeLessThan(memory.expected)
  expect(result.variants.map(({ activations }) => activations)).not.toContain('streamed')
})

test('the purpose decides', async () => {
  expect((await planned({ learns: 'architecture' })).recommendation.method).toBe('full')
  const tokens = (await planned({ learns: 'tokens' })).recommendation
  expect(tokens.reasons.join()).toContain('modulesToSave embed_tokens')
  expect((await planned({ deploy: 'adapters' })).recommendation.reasons.join()).toContain('many of them share one base')
})

test('a page of 100 columns; the file of a training run is taken as it is', async () => {
  const config = join(folder, 'run.yaml')
  writeFileSync(config, `model: ${model}\ntrain: ${train}\noutput_dir: ${join(folder, 'never')}\nr: 4\n`)
  const { code, stdout, stderr } = await lowrankHere(['plan', config, '--ram', '8GB', '--step-seconds', '1.5'])
  expect(code, stderr).toBe(0)
  for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100)
  expect(stdout).toContain('take lora, activations kept')
  expect(stdout).toMatch(/^method .* all steps +cost USD$/m)
  expect(stdout).toMatch(
    /^qlora-8bit +recompute +[\d,]+ +[\d.]+ MB +yes +4096 x \d+ +[\d,]+ bytes +1\.50 s +9\.0 s +0\.00$/m,
  )
  expect(existsSync(join(folder, 'never'))).toBe(false)
  const json = await lowrankHere(['plan', config, '--ram', '8GB', '--no-probe', '--json'])
  const result = JSON.parse(json.stdout) as PlanResult
  const adapter = (r: number): number => 2 * 2 * r * (32 + 32) - 2 * r * 16
  expect(variant(result, 'lora').trainableParameters).toBe(adapter(4))
})

describe('GGUF', () => {
  test('its header is enough, and one that is cut short is refused', async () => {
    const file = join(folder, 'tiny.gguf')
    await writeAsGguf(model, file, join(folder, 'same'))
    const result = await planned({ model: file })
    expect(result.parameters).toBe((await planned()).parameters)
    expect(variant(result, 'lora').trainableParameters).toBe(variant(await planned(), 'lora').trainableParameters)
    const cut = join(folder, 'cut.gguf')
    writeFileSync(cut, readFileSync(file).subarray(0, -1000))
    await expect(planned({ model: cut })).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining(cut) as string,
    })
  })
})

describe('the hub', () => {
  const hub = new StandIn()
  const variables = ['HF_ENDPOINT', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE'] as const
  const before = variables.map((name) => process.env[name])
  const cache = join(folder, 'cache')
  beforeAll(async () => {
    await hub.start()
    hub.add('org/tiny', model)
    process.env['HF_ENDPOINT'] = hub.endpoint
    process.env['HF_HUB_CACHE'] = cache
    delete process.env['HF_HUB_OFFLINE']
  })
  afterAll(async () => {
    variables.forEach((name, i) => {
      if (before[i] === undefined) delete process.env[name]
      else process.env[name] = before[i]
    })
    await hub.stop()
  })

  test('of a model nothing is downloaded but small files and a header, and the plan is that of its folder', async () => {
    const [there, here] = [await planned({ model: 'org/tiny', train }), await planned({ train })]
    expect({ ...there, model: '' }).toEqual({ ...here, model: '' })
    expect(listFiles(cache).filter((name) => name.includes('safetensors'))).toEqual([])
    const { length } = readFileSync(join(model, 'model.safetensors'))
    const asked = hub.cdn.filter(({ range }) => range?.startsWith('bytes=0-') === true)
    expect(asked).toHaveLength(1)
    expect(Number(/-(\d+)$/.exec(asked[0]?.range ?? '')?.[1])).toBeLessThan(length)
  })

  test('a model that is not there, or not in the cache when that is all there is', async () => {
    await expect(planned({ model: 'org/none' })).rejects.toMatchObject({
      code: 'model',
      message: expect.stringContaining('the hub has no such model') as string,
    })
    process.env['HF_HUB_OFFLINE'] = '1'
    await expect(planned({ model: 'org/other' })).rejects.toThrow('HF_HUB_OFFLINE is set')
    delete process.env['HF_HUB_OFFLINE']
  })
})

test('what is wrong is named', async () => {
  await expect(planned({ gpu: '24GB' })).rejects.toThrow('gpu: has no meaning with ram; give the memory of one machine')
  const { code, stderr } = await lowrankHere(['plan', '--model', model, '--methods', 'lora,dora'])
  expect(code).toBe(2)
  expect(stderr).toContain('--methods')
  expect(stderr).toContain('expected all, or some of full, lora, qlora, qlora-fp4, qlora-8bit')
  const quantized = join(folder, 'quantized')
  await directTasks.quantize({ model, output: quantized })
  const { refused, variants } = await planned({ model: quantized })
  expect(refused.map(({ method }) => method)).toEqual(['full', 'qlora-fp4', 'qlora-8bit'])
  expect(refused[0]?.why).toContain('method full trains every weight')
  // Blocks that are quantized already can stay on disk.
  expect(variants.map(({ method, activations }) => `${method} ${activations}`)).toContain('qlora streamed')
  expect(readJson(join(quantized, 'config.json'))).toHaveProperty('quantization_config')
  await expect(planned({ model: quantized, methods: ['full'] })).rejects.toThrow('method full trains every weight')
})
