/*
 * Tokens a second of generation: prompts and single tokens, alone and in batches, with and without an adapter, at a short and a long
 * context; as a share of what reading the weights allows, and beside llama.cpp where it is installed. All of a round is measured one after
 * the other, so that ratios hold on a busy machine.
 *
 *     npm run bench:generate -- --model DIR [--rounds 5] [--tokens 32] [--long 4000] [--gguf F32=FILE,Q8_0=FILE,Q4_0=FILE]
 *
 * llama.cpp: `node-llama-cpp` in the current folder's node_modules, or below the folder LOWRANK_PEERS; `--gguf`: the same model in its
 * formats (`lowrank export --to gguf --dtype q8_0`). Speeds of packed weights hold only for weights that differ from layer to layer.
 */
import { defaultThreads } from '../src/engine/machine.ts'
import type { LoadedAdapter } from '../src/engine/cached/adapters.ts'
import type { KeyValueCache } from '../src/engine/cached/key-value-cache.ts'
import { f32Tensor, Runtime } from '../src/engine/onnxruntime/runtime.ts'
import { b } from '../src/graph/build.ts'
import { program } from '../src/graph/program.ts'
import type { Precision } from '../src/config/index.ts'
import { type Generation, openGeneration } from '../src/session/generation.ts'
import { weightSpecs } from '../src/model/weight-specs.ts'
import { elements } from '../src/util/shape.ts'
import { fillNormal, stream } from '../src/util/random.ts'
import { linearSpecs } from '../src/model/weight-specs.ts'
import { openLlama, type Peer } from './llama.ts'
import { modelFolder } from './python.ts'
import { countFlag, flagValue, median } from './training-step.ts'

const args = process.argv.slice(2)
const model = modelFolder(args)
const rounds = countFlag(args, '--rounds', 5)
const tokens = countFlag(args, '--tokens', 32)
const [short, long] = [256, countFlag(args, '--long', 4000)]
const ggufs = Object.fromEntries(
  (flagValue(args, '--gguf')?.split(',') ?? []).map((pair) => pair.split('=')),
) as Record<string, string>

/** Bytes a second that two threads read. */
async function readRate(runtime: Runtime): Promise<number> {
  const size = 2 ** 27
  const data = new Float32Array(size).fill(1)
  const x = b.input('x', { dtype: 'f32', shape: [2 ** 14, size / 2 ** 14] })
  const sum = program({
    name: 'read',
    inputs: [{ name: 'x', value: x }],
    outputs: [{ name: 'y', value: b.reduceSum(x, [1]) }],
  })
  let best = 0
  for (let i = 0; i < 5; i++) {
    const begun = performance.now()
    await runtime.run(sum, { x: f32Tensor(data, [2 ** 14, size / 2 ** 14]) })
    best = Math.max(best, (4 * size) / ((performance.now() - begun) / 1000))
  }
  return best
}

/** An adapter of rank 16 on all linear layers. */
function randomAdapter({ config }: Generation): LoadedAdapter {
  const rank = 16
  const random = (count: number, name: string): Float32Array => {
    const data = new Float32Array(count)
    fillNormal(data, 0, 0.01, stream(1, name))
    return data
  }
  const modules = config.layers.flatMap((_, i) =>
    linearSpecs(config).map(({ module, inFeatures, outFeatures }) => {
      const path = `${config.trunk}.layers.${i}.${module}`
      return [path, { a: random(rank * inFeatures, `${path}.a`), b: random(rank * outFeatures, `${path}.b`) }] as const
    }),
  )
  return { rank, scale: 2, modules: new Map(modules), replaced: new Map() }
}

const someIds = (count: number, vocabulary: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => (i * 7919 + 13) % Math.min(vocabulary, 40_000))

/** Fills a cache of some rows up to a context. */
async function filled({ decoder, config }: Generation, rows: number, context: number): Promise<KeyValueCache> {
  const ids = someIds(context, config.vocabSize)
  const cache = decoder.newCache()
  for (let at = 0; at < context; at += 256) {
    await decoder.run(cache, { ids: ids.slice(at, at + 256), adapters: [undefined], logits: 'none' })
  }
  const one = cache.row(0)
  for (let row = 1; row < rows; row++) cache.join(one)
  return cache
}

/** Seconds a token step takes, the median of a few. */
async function decode(
  { decoder }: Generation,
  cache: KeyValueCache,
  adapters: readonly (LoadedAdapter | undefined)[],
): Promise<number> {
  const seconds: number[] = []
  const lengths = adapters.map((_, row) => cache.lengthOf(row))
  for (let i = 0; i < tokens; i++) {
    const begun = performance.now()
    await decoder.run(cache, { ids: Int32Array.from(adapters, () => 100 + i), adapters, logits: 'last' })
    seconds.push((performance.now() - begun) / 1000)
  }
  lengths.forEach((length, row) => cache.truncate(row, length))
  return median(seconds)
}

async function prefill({ decoder, config }: Generation): Promise<number> {
  const cache = decoder.newCache()
  const begun = performance.now()
  await decoder.run(cache, { ids: someIds(short, config.vocabSize), adapters: [undefined], logits: 'last' })
  return (performance.now() - begun) / 1000
}

type Measure = () => Promise<number>

async function measures(
  precision: Precision,
): Promise<{ readonly all: Record<string, Measure>; readonly close: () => Promise<void> }> {
  const generation = await openGeneration({ model, precision })
  const adapter = randomAdapter(generation)
  const [alone, four, sixteen, far] = [
    await filled(generation, 1, short),
    await filled(generation, 4, short),
    await filled(generation, 16, short),
    await filled(generation, 1, long),
  ]
  const rows = (count: number, one?: LoadedAdapter): (LoadedAdapter | undefined)[] =>
    Array.from({ length: count }, () => one)
  const base: Record<string, Measure> = {
    'prefill 256': () => prefill(generation),
    'token, context 256': () => decode(generation, alone, rows(1)),
    'token, batch 4': () => decode(generation, four, rows(4)),
    'token, batch 16': () => decode(generation, sixteen, rows(16)),
    [`token, context ${long}`]: () => decode(generation, far, rows(1)),
  }
  // Programs with constants hold either form at a time.
  const adapted: Record<string, Measure> =
    precision === 'exact'
      ? {
          'token, adapter': () => decode(generation, alone, rows(1, adapter)),
          'token, batch 16, adapter': () => decode(generation, sixteen, rows(16, adapter)),
        }
      : {}
  return { all: { ...base, ...adapted }, close: () => generation.close() }
}

const runtime = new Runtime({ threads: defaultThreads() })
const rate = await readRate(runtime)
await runtime.close()

const peerOf: Record<Precision, string> = { exact: 'F32', fast: 'Q8_0', 'fast-4bit': 'Q4_0' }
for (const precision of ['exact', 'fast', 'fast-4bit'] as const) {
  const ours = await measures(precision)
  const file = ggufs[peerOf[precision]]
  const peer: Peer | undefined = file === undefined ? undefined : await openLlama(file, { short, long, tokens })
  const found = new Map<string, { readonly own: number[]; readonly other: number[] }>()
  for (let round = 0; round < rounds; round++) {
    for (const [name, measure] of Object.entries(ours.all)) {
      const entry = found.get(name) ?? { own: [], other: [] }
      found.set(name, entry)
      entry.own.push(await measure())
      const theirs = peer?.measures[name]
      if (theirs !== undefined) entry.other.push(await theirs())
    }
  }
  console.log(`\n${precision}${peer === undefined ? '' : `, beside llama.cpp ${peerOf[precision]}`}`)
  const alone = median(found.get('token, context 256')?.own ?? [])
  for (const [name, { own, other }] of found) {
    const seconds = median(own)
    const count = name.startsWith('prefill') ? short : name.includes('batch 16') ? 16 : name.includes('batch 4') ? 4 : 1
    const perSecond = (count / seconds).toFixed(1).padStart(8)
    const ratios = own.flatMap((one, i) => (other[i] === undefined ? [] : [other[i] / one]))
    const beside = ratios.length === 0 ? '' : `  ${median(ratios).toFixed(2)} x llama.cpp`
    const toAlone =
      name === 'token, context 256' || count === short ? '' : `  step ${(seconds / alone).toFixed(2)} x alone`
    console.log(
      `  ${name.padEnd(26)} ${perSecond} tokens/s  ${(1000 * seconds).toFixed(1).padStart(7)} ms${toAlone}${beside}`,
    )
  }
  if (precision === 'exact') {
    const generation = await openGeneration({ model })
    const bytes = 4 * weightSpecs(generation.config).reduce((total, { shape }) => total + elements(shape), 0)
    await generation.close()
    console.log(
      `  reading the weights at ${(rate / 1e9).toFixed(1)} GB/s: ${((100 * bytes) / rate / alone).toFixed(0)} % of the bandwidth`,
    )
  }
  await peer?.close()
  await ours.close()
}
