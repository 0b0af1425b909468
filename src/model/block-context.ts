import { b } from '../graph/build.ts'
import type { Port } from '../graph/program.ts'
import type { Value } from '../graph/value.ts'
import { attentionParts } from '../util/attention.ts'
import { type AttentionPart, attendInParts } from './attention.ts'
import type { BlockContext, DecoderConfig } from './decoder.ts'

/**
 * What block `index` computes with besides x, as symbolic inputs: `cos` and `sin`, where the layer knows of positions; `sizes`, `cut.N` and
 * `mask.N` of the parts of attention; `rows` for the last block: past attention, what no label is predicted from is never read.
 */
export function blockContext(
  config: DecoderConfig,
  index: number,
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
  const sizes = i64('sizes', [attentionParts])
  const rows = index === numHiddenLayers - 1 ? i64('rows', ['rows']) : undefined
  const parts = Array.from({ length: attentionParts }, (_, i): AttentionPart => {
    const final = i === attentionParts - 1
    const [queries, keys] = [`part ${i}`, final ? 'seq' : `upto ${i}`]
    const cut = final ? undefined : i64(`cut.${i}`, [2])
    return { queries, keys, cut, mask: f32(`mask.${i}`, ['1|batch', 1, 1, queries, keys]) }
  })
  return { context: { rope, attend: attendInParts(config, sizes, parts), rows }, ports }
}
