import type { StoredWeight } from '../../storage/stored.ts'
import { internalError } from '../../util/errors.ts'

/** An adapter in memory, beside the base model. */
export interface LoadedAdapter {
  /** The largest rank of its modules; those of a smaller one are filled up with zeros. */
  readonly rank: number
  /** By what the low-rank values are multiplied. */
  readonly scale: number
  /** By path: A [rank, in], and B transposed, [rank, out]. */
  readonly modules: ReadonlyMap<string, AdapterMatrices>
  /** Weights in f32 that stand for those of the base: modules that were trained whole, and biases. */
  readonly replaced: ReadonlyMap<string, StoredWeight>
}

export interface AdapterMatrices {
  readonly a: Float32Array
  readonly b: Float32Array
}

/** The adapters of a batch as one, with their ranks side by side. */
export interface AdapterSet {
  readonly rank: number
  /** Of each module that one of them adapts. */
  readonly paths: ReadonlySet<string>
  matrices(path: string, shape: { readonly inFeatures: number; readonly outFeatures: number }): AdapterMatrices
  /** Factors [rows, rank]: for a row that uses an adapter its scale at its ranks, 0 elsewhere. */
  scales(rows: readonly (LoadedAdapter | undefined)[]): Float32Array
}

/** Puts adapters side by side. Those of one are fed as they are. */
export function adapterSet(adapters: readonly LoadedAdapter[]): AdapterSet {
  const rank = adapters.reduce((total, adapter) => total + adapter.rank, 0)
  const starts = new Map<LoadedAdapter, number>()
  let start = 0
  for (const adapter of adapters) {
    starts.set(adapter, start)
    start += adapter.rank
  }
  const joined = new Map<string, AdapterMatrices>()
  const zeros = new Map<number, Float32Array>()
  const zero = (count: number): Float32Array => {
    const known = zeros.get(count) ?? new Float32Array(count)
    zeros.set(count, known)
    return known
  }
  const [only] = adapters
  return {
    rank,
    paths: new Set(adapters.flatMap(({ modules }) => [...modules.keys()])),
    matrices: (path, { inFeatures, outFeatures }) => {
      if (adapters.length === 1) {
        const own = only?.modules.get(path)
        return own ?? { a: zero(rank * inFeatures), b: zero(rank * outFeatures) }
      }
      const known = joined.get(path)
      if (known !== undefined) return known
      const made = { a: new Float32Array(rank * inFeatures), b: new Float32Array(rank * outFeatures) }
      for (const adapter of adapters) {
        const [own, first] = [adapter.modules.get(path), starts.get(adapter) ?? 0]
        if (own === undefined) continue
        made.a.set(own.a, first * inFeatures)
        made.b.set(own.b, first * outFeatures)
      }
      joined.set(path, made)
      return made
    },
    scales: (rows) => {
      const factors = new Float32Array(rows.length * rank)
      rows.forEach((adapter, row) => {
        if (adapter === undefined) return
        const first = starts.get(adapter)
        if (first === undefined) throw internalError('a row with an adapter that is not of its batch')
        factors.fill(adapter.scale, row * rank + first, row * rank + first + adapter.rank)
      })
      return factors
    },
  }
}
