import type { DecoderConfig } from '../../model/decoder.ts'
import { inverseFrequencies } from '../../model/rope.ts'
import type { LayerKind } from '../../util/rope.ts'

/** What a decoder computes, apart from its weights. */
const computed = [
  'hiddenSize',
  'intermediateSize',
  'numHiddenLayers',
  'numAttentionHeads',
  'numKeyValueHeads',
  'headDim',
  'vocabSize',
  'activation',
  'rmsNormEps',
  'normOffset',
  'biases',
  'attentionScale',
  'scoreCap',
  'logitCap',
  'embeddingScale',
  'multipliers',
  'tieWordEmbeddings',
] as const satisfies readonly (keyof DecoderConfig)[]

/** The first thing in which two descriptions compute differently; undefined where they compute alike. Numbers may differ as f32 rounds. */
export function differenceBetween(a: DecoderConfig, b: DecoderConfig): string | undefined {
  const key = computed.find((one) => !alike(a[one], b[one]))
  if (key !== undefined) return `${key} ${JSON.stringify(a[key]) ?? 'unset'}`
  const layer = a.layers.findIndex((kind, i) => !sameKind(kind, b.layers[i], a.maxPositionEmbeddings))
  if (layer === -1) return undefined
  const { rope, window } = a.layers[layer]!
  return `layer ${layer}: ${rope === undefined ? 'no positions' : `rope scaling "${rope.scaling.type}"`}${window === undefined ? '' : `, a window of ${window}`}`
}

function alike(a: unknown, b: unknown): boolean {
  if (typeof a === 'number' && typeof b === 'number') return Math.abs(a - b) <= 2e-6 * Math.abs(a)
  if (typeof a === 'object' && a !== null && typeof b === 'object' && b !== null) {
    return Object.entries(a).every(([key, value]) => alike(value, Reflect.get(b, key)))
  }
  return a === b
}

/** By what positions become: the same angles may be described in several ways. */
function sameKind(a: LayerKind, b: LayerKind | undefined, longest: number): boolean {
  if (a === b) return true
  if (a.window !== b?.window || (a.rope === undefined) !== (b?.rope === undefined)) return false
  const [own, other] = [a.rope, b?.rope]
  if (own === undefined || other === undefined) return true
  if (own.channels !== other.channels || !alike(factorOf(own), factorOf(other))) return false
  // A scaling that depends on the length differs at one of these, or not at all.
  return [1, longest, 4 * longest].every((length) =>
    alike(inverseFrequencies(own, length), inverseFrequencies(other, length)),
  )
}

function factorOf({ scaling }: NonNullable<LayerKind['rope']>): number {
  return 'attentionFactor' in scaling ? scaling.attentionFactor : 1
}
