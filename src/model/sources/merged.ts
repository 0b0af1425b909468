import { type F32Weight, isFloatStorage, type StoredWeight } from '../../storage/stored.ts'
import { widened } from '../../storage/formats.ts'
import { type RowReader, rowReader } from '../../storage/rows.ts'
import { indexOfNonFinite } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { elements } from '../../util/shape.ts'
import { headName, sourceName } from '../names.ts'
import { type Adaptation, adaptWithLora, checkAllUsed } from '../peft/adapt.ts'
import type { Adapter } from '../peft/adapter.ts'
import { type AddedAdapter, deltaOf, isChanged } from '../peft/delta.ts'
import { weightSpecs, type WeightSpec } from '../weight-specs.ts'
import type { Rows, WeightSource } from './source.ts'

/** An adapter that was opened, to be merged with a factor. */
export interface MergedAdapter {
  readonly folder: string
  readonly adapter: Adapter
  readonly scale: number
}

/** Some rows of a weight, before adapters are added and after; a vector is one row. Valid until the next are asked for. */
interface MergedRows {
  readonly rows: Rows
  readonly before: Float32Array
  readonly after: Float32Array
}

/** A base with adapters added to it: weights of the same names as any model of its kind has, but that a tied head may have become its own. */
export interface MergedWeights extends WeightSource {
  /** Whether adapters change a weight. */
  readonly changes: (name: string) => boolean
  /**
   * A weight row by row, at most `mostElements` at a time, so that little of a large one is in memory; all of it where the base has no other
   * way to read it.
   */
  readonly rowsOf: (name: string, options?: { readonly mostElements?: number }) => AsyncGenerator<MergedRows>
}

/**
 * The weights of a base with adapters added, each times its factor, computed as they are loaded: see `deltaOf`. What nothing changes is given
 * as the base stores it, except that quantized weights become f32. Closing it closes the base and the adapters.
 *
 * @throws LowrankError `adapter`: a target matches nothing, or a tensor of a file would be left out.
 */
export async function mergedWeights(base: WeightSource, given: readonly MergedAdapter[]): Promise<MergedWeights> {
  const adapters: AddedAdapter[] = []
  for (const { adapter, ...one } of given) {
    const adaptation = adaptWithLora(base, adapter.config, { loaded: true })
    await checkAllUsed(adapter, base, adaptation)
    adapters.push({ ...one, adapter, adaptation })
  }
  const ownHead = base.config.tieWordEmbeddings && adapters.some(({ adaptation }) => untiesHead(adaptation))
  const config = ownHead ? { ...base.config, tieWordEmbeddings: false } : base.config
  const specs = weightSpecs(config)
  const changes = (name: string): boolean => adapters.some((adapter) => isChanged(adapter, name))
  const parts = { base, adapters, specOf: specOf(specs) }
  return {
    ...base,
    config,
    specs,
    quantization: undefined,
    changes,
    storage: (name) => {
      const stored = base.storage(sourceName(base.config, name))
      return changes(name) || !isFloatStorage(stored) ? 'F32' : stored
    },
    load: async (name, reuse, rows) => {
      if (changes(name)) return loadChanged(parts, name, rows)
      const stored = sourceName(base.config, name)
      if (isFloatStorage(base.storage(stored))) return base.load(stored, reuse, rows)
      return widened(await base.load(stored))
    },
    rowsOf: (name, options) => rowsOf(parts, name, options),
    close: async () => {
      await base.close()
      for (const { adapter } of given) await adapter.tensors.close()
    },
  }
}

/** Whether a tied head gets a weight of its own: it is adapted, or one of the two is trained in full. */
function untiesHead({ separateHead, adapterOf }: Adaptation): boolean {
  return separateHead || adapterOf(headName.replace(/\.weight$/, '')) !== undefined
}

/** What a weight is made of. */
interface Parts {
  readonly base: WeightSource
  readonly adapters: readonly AddedAdapter[]
  readonly specOf: (name: string) => WeightSpec
}

function specOf(specs: readonly WeightSpec[]): Parts['specOf'] {
  const byName = new Map(specs.map((spec) => [spec.name, spec]))
  return (name) => {
    const spec = byName.get(name)
    if (spec === undefined) throw internalError(`a merged model has no weight ${name}`)
    return spec
  }
}

async function loadChanged(parts: Parts, name: string, rows: Rows | undefined): Promise<F32Weight> {
  const { shape } = parts.specOf(name)
  const isVector = shape.length < 2
  const all = rows === undefined || isVector
  const [count = 1, ...inner] = shape
  const wanted = all ? { start: 0, end: isVector ? 1 : count } : rows
  const width = elements(isVector ? shape : inner)
  const data = new Float32Array((wanted.end - wanted.start) * width)
  for await (const { rows: found, after } of rowsOf(parts, name, { wanted }))
    data.set(after, (found.start - wanted.start) * width)
  return { storage: 'F32', shape: all ? shape : [wanted.end - wanted.start, ...inner], data }
}

/** Elements of a weight that are in memory at once, where nothing else is said. */
const mostAtOnce = 2 ** 22

async function* rowsOf(
  { base, adapters, specOf }: Parts,
  name: string,
  { wanted, mostElements = mostAtOnce }: { readonly wanted?: Rows; readonly mostElements?: number } = {},
): AsyncGenerator<MergedRows> {
  const { shape } = specOf(name)
  const isVector = shape.length < 2
  const [count, width] = isVector ? [1, elements(shape)] : [shape[0] ?? 0, elements(shape.slice(1))]
  const { start: first, end: last } = wanted ?? { start: 0, end: count }
  const delta = await deltaOf({ name, shape }, adapters)
  const read = reader(base, sourceName(base.config, name), { count })
  const step = Math.max(1, Math.floor(mostElements / width))
  const size = Math.min(step, last - first) * width
  const memory = [new Float32Array(size), delta === undefined ? undefined : new Float32Array(size)] as const
  for (let start = first; start < last; start += step) {
    const rows = { start, end: Math.min(last, start + step) }
    const [before, changed] = memory.map((array) => array?.subarray(0, (rows.end - start) * width))
    if (before === undefined) throw internalError('no rows')
    await read(rows, before)
    const after = changed ?? before
    await delta?.add(before, after, rows)
    const broken = indexOfNonFinite(after, 'F32')
    if (broken !== -1) throw notFinite(name, after[broken], start * width + broken)
    yield { rows, before, after }
  }
}

/** Reads rows of a weight as f32 into memory. What a source gives whole is kept as it is stored until the last row was read. */
function reader(
  base: WeightSource,
  name: string,
  { count }: { readonly count: number },
): (rows: Rows, out: Float32Array) => Promise<void> {
  let whole: RowReader | undefined
  let part: StoredWeight | undefined
  return async (rows, out) => {
    if (whole === undefined) {
      const some = await base.load(name, part, count > 1 ? rows : undefined)
      if (elements(some.shape) <= out.length) {
        part = some
        rowReader(some)({ start: 0, end: rows.end - rows.start }, out)
        return
      }
      whole = rowReader(some)
    }
    whole(rows, out)
  }
}

function notFinite(name: string, value: number | undefined, index: number): LowrankError {
  return new LowrankError('adapter', `the merged weight ${name} would hold ${value} in element ${index}`, {
    hint: 'Model and adapter are finite, their sum is not: a scale, or the adapter, is far too large.',
  })
}
