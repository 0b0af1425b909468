import { b } from '../graph/build.ts'
import type { Port } from '../graph/program.ts'
import { only as firstOf, type Value } from '../graph/value.ts'
import { attentionParts, treeParts } from '../util/attention.ts'
import { type AttentionPart, attendInParts, groupSize } from './attention.ts'
import type { BlockContext, DecoderConfig } from './decoder.ts'

/**
 * What block `index` computes with besides x, as symbolic inputs: `cos` and `sin`, where the layer knows of positions; `sizes`, `cut.N` and
 * `mask.N` of the parts of attention, of rows that are trees `seen.N`, too; `rows` for the last block: past attention, what no label is predicted
 * from is never read.
 */
export function blockContext(
  config: DecoderConfig,
  index: number,
  { trees = false }: { readonly trees?: boolean | undefined } = {},
): { readonly context: BlockContext; readonly ports: readonly Port[] } {
  const { layers, numHiddenLayers } = config
  const ports: Port[] = []
  const port = (name: string, value: Value): Value => {
    ports.push({ name, value })
    return value
  }
  const f32 = (name: string, shape: readonly (number | string)[]): Value =>
    port(name, b.input(name, { dtype: 'f32', shape }))
  const i64 = (name: string, shape: readonly (number | string)[]): Value =>
    port(name, b.input(name, { dtype: 'i64', shape }))
  const kind = layers[index]
  const angles = ['batch', 'seq', (kind?.rope?.channels ?? 0) / 2]
  const rope = kind?.rope && { cos: f32('cos', angles), sin: f32('sin', angles) }
  const count = trees ? treeParts : attentionParts
  const sizes = i64('sizes', [count])
  const rows = index === numHiddenLayers - 1 ? i64('rows', ['rows']) : undefined
  const maskOf = (i: number, keys: string): Value =>
    b.repeat(f32(`mask.${i}`, ['1|batch', 1, `part ${i}`, keys]), { axis: 2, times: groupSize(config) })
  /** Sees all keys up to its last query. */
  const rowPart = (i: number): AttentionPart => {
    const final = i === count - 1
    const keys = final ? 'seq' : `upto ${i}`
    const cut = final ? undefined : i64(`cut.${i}`, [2])
    const seen = (all: Value): Value =>
      cut === undefined ? all : firstOf(b.split(all, cut, { axis: 2, parts: [keys, `after ${keys}`] }))
    return { queries: `part ${i}`, seen, mask: maskOf(i, keys) }
  }
  /** Sees the keys from the beginning of the row to a gap, and those from there to its last query. */
  const treePart = (i: number): AttentionPart => {
    const [cut, lengths] = [i64(`cut.${i}`, [4]), i64(`seen.${i}`, [2])]
    const parts = [`before ${i}`, `gap ${i}`, `near ${i}`, `after ${i}`]
    const seen = (all: Value): Value => {
      const [before = all, , near = all] = b.split(all, cut, { axis: 2, parts })
      return b.concat([before, near], lengths, { axis: 2, whole: `keys ${i}` })
    }
    return { queries: `part ${i}`, seen, mask: maskOf(i, `keys ${i}`) }
  }
  const parts = Array.from({ length: count }, (_, i) => (trees ? treePart(i) : rowPart(i)))
  return { context: { rope, attend: attendInParts(config, sizes, parts), rows }, ports }
}
