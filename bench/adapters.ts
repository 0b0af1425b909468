/*
 * Adapters beside one base model: what many of them take in memory, and how long the next token is in coming when another one is used.
 *
 *     npm run bench:adapters -- --model DIR [--adapters 50]
 *
 * The adapters are random, of rank 16 on all linear layers. A swap is what a step with another adapter takes more than the next one with the
 * same.
 */
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { LoadedAdapter } from '../src/engine/cached/adapters.ts'
import { writeSafetensors } from '../src/formats/safetensors.ts'
import { openWeights } from '../src/model/sources/checkpoint.ts'
import { linearPaths } from '../src/model/weight-specs.ts'
import { openGeneration } from '../src/session/generation.ts'
import { fillUniform, stream } from '../src/util/random.ts'
import { modelFolder } from './python.ts'
import { flagValue, median } from './training-step.ts'

const [rank, steps] = [16, 40]

/** Writes an adapter in the files of PEFT. */
async function writeAdapter(model: string, folder: string): Promise<void> {
  const { config, specs, close } = await openWeights(model)
  await close()
  const shapes = new Map(specs.map(({ name, shape }) => [name, shape]))
  const paths = linearPaths(config).filter((path) => path !== 'lm_head')
  const tensors = paths.flatMap((path) => {
    const [outFeatures = 0, inFeatures = 0] = shapes.get(`${path}.weight`) ?? []
    return [
      { name: `base_model.model.${path}.lora_A.weight`, shape: [rank, inFeatures] },
      { name: `base_model.model.${path}.lora_B.weight`, shape: [outFeatures, rank] },
    ]
  })
  const sources = tensors.map(({ name, shape: [rows = 0, columns = 0] }) => ({
    name,
    dtype: 'F32' as const,
    shape: [rows, columns],
    data: async () => {
      const values = new Float32Array(rows * columns)
      fillUniform(values, -0.01, 0.01, stream(1, name))
      return new Uint8Array(values.buffer)
    },
  }))
  await mkdir(folder)
  const json = { peft_type: 'LORA', task_type: 'CAUSAL_LM', r: rank, lora_alpha: 32, target_modules: 'all-linear' }
  await writeFile(join(folder, 'adapter_config.json'), JSON.stringify(json))
  await writeSafetensors(join(folder, 'adapter_model.safetensors'), sources, { format: 'pt' })
}

/** Bytes that the process has in memory, once what is garbage is gone. */
async function resident(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return process.memoryUsage.rss()
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

async function measure(model: string, count: number, work: string): Promise<void> {
  const folder = join(work, 'adapter')
  await writeAdapter(model, folder)
  const { size } = await stat(join(folder, 'adapter_model.safetensors'))
  const { decoder, adapter, close } = await openGeneration({ model })
  const adapters: LoadedAdapter[] = [await adapter(folder)]
  const cache = decoder.newCache()
  const step = async (own: LoadedAdapter): Promise<number> => {
    const begun = performance.now()
    await decoder.run(cache, { ids: Int32Array.of(1), adapters: [own], logits: 'last' })
    const taken = performance.now() - begun
    cache.truncate(0, 16)
    return taken
  }
  await decoder.run(cache, { ids: new Int32Array(16).fill(1), adapters: [adapters[0]], logits: 'none' })
  for (let i = 0; i < 5; i++) await step(adapters[0]!)
  const before = await resident()
  const read: number[] = []
  while (adapters.length <= count) {
    const begun = performance.now()
    adapters.push(await adapter(folder))
    read.push(performance.now() - begun)
  }
  const grown = (await resident()) - before
  console.log(`an adapter of rank ${rank}: file ${megabytes(size)}, read in ${median(read).toFixed(1)} ms`)
  console.log(
    `${count} of them: ${megabytes(grown)} more in memory, ${(grown / count / size).toFixed(3)} times their files`,
  )
  const [same, other]: [number[], number[]] = [[], []]
  for (let i = 0; i < steps; i++) {
    const own = adapters[i % adapters.length]!
    // The first step with it is the swap.
    other.push(await step(own))
    same.push(await step(own))
  }
  const differences = other.map((taken, i) => taken - same[i]!)
  const swap = `the swap takes ${median(differences).toFixed(2)} ms (median of ${steps} pairs)`
  console.log(
    `a token with another adapter: ${median(other).toFixed(1)} ms, with the same: ${median(same).toFixed(1)} ms; ${swap}`,
  )
  await close()
}

const args = process.argv.slice(2)
const model = modelFolder(args)
const work = await mkdtemp(join(tmpdir(), 'lowrank-adapters-'))
try {
  await measure(model, Number(flagValue(args, '--adapters') ?? 50), work)
} finally {
  await rm(work, { recursive: true })
}
