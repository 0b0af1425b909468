import { b } from '../graph/build.ts'
import type { Port } from '../graph/program.ts'
import { only as firstOf, type Value } from '../graph/value.ts'
import { attentionParts, treeParts } from '../util/attention.ts'
import { attendInParts, groupSize, type QueryParts } from './attention.ts'
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
  const each = <T>(made: (part: number) => T): readonly T[] => Array.from({ length: count }, (_, i) => made(i))
  const maskOf = (i: number, keys: string): Value =>
    b.repeat(f32(`mask.${i}`, ['1|batch', 1, `part ${i}`, keys]), { axis: 2, times: groupSize(config) })

  /** A part sees all keys up to its last query. They are cut from those of the part behind it, which copies less than from all. */
  const ofRows = (): Pick<QueryParts, 'seen' | 'masks'> => {
    const cuts = each((i) => (i === count - 1 ? undefined : i64(`cut.${i}`, [2])))
    const seen = (all: Value): readonly Value[] =>
      cuts.reduceRight<readonly Value[]>((later, cut, i) => {
        const [next = all] = later
        const parts = [`upto ${i}`, `part ${i + 1}`]
        return [cut === undefined ? all : firstOf(b.split(next, cut, { axis: 2, parts })), ...later]
      }, [])
    return { seen, masks: each((i) => maskOf(i, i === count - 1 ? 'seq' : `upto ${i}`)) }
  }
  /** A part sees the keys from the beginning of the row to a gap, and those from there to its last query. */
  const ofTrees = (): Pick<QueryParts, 'seen' | 'masks'> => {
    const cuts = each((i) => ({ cut: i64(`cut.${i}`, [4]), lengths: i64(`seen.${i}`, [2]) }))
    const seen = (all: Value): readonly Value[] =>
      cuts.map(({ cut, lengths }, i) => {
        const parts = [`before ${i}`, `gap ${i}`, `near ${i}`, `after ${i}`]
        const [before = all, , near = all] = b.split(all, cut, { axis: 2, parts })
        return b.concat([before, near], lengths, { axis: 2, whole: `keys ${i}` })
      })
    return { seen, masks: each((i) => maskOf(i, `keys ${i}`)) }
  }
  const queries = each((i) => `part ${i}`)
  const attend = attendInParts(config, { queries, sizes, ...(trees ? ofTrees() : ofRows()) })
  return { context: { rope, attend, rows }, ports }
}
