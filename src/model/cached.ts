import { b } from '../graph/build.ts'
import { product, type Shape } from '../graph/dims.ts'
import { program, type Port, type Program } from '../graph/program.ts'
import type { DType, Value } from '../graph/value.ts'
import type { Storage } from '../storage/stored.ts'
import { internalError } from '../util/errors.ts'
import { attendWithCache, groupSize } from './attention.ts'
import type { BlockContext, DecoderConfig, LayerKind, Layers } from './decoder.ts'
import { families } from './families/index.ts'
import { StageLayers, type StageParameter } from './layers.ts'
import { embeddingName, headName } from './names.ts'
import { withFedAdapters, type FedAdapter } from './peft/lora.ts'
import { sharing } from './sharing.ts'

/**
 * A part of a decoder that reads and extends a cache of keys and values: some blocks, perhaps the head, as one program. Inputs:
 *
 * - `x` [batch, seq, hidden], what comes before (of the head alone [rows, hidden]); `rows` i64 [rows]: the positions b * seq + t whose
 *   logits are wanted, where the last block is among them
 * - `cos.K`, `sin.K` [batch, seq, channels / 2] and `mask.K` [batch, 1, group * seq, past + seq] of each kind of layer
 * - `lengths` i64 [2]: past and seq; `N.past.keys`, `N.past.values` [batch, kv heads, past, d] of the Nth block
 * - parameters by port; `M.lora_A` [rank, in] and `M.lora_B` [rank, out] of adapted modules, `scales` [batch, 1, rank] and
 *   `scales.rows` [rows, rank]: see `withFedAdapters`
 *
 * Results: `y`, or of the last part `logits` [rows, vocabulary] or `hidden` [rows, hidden]; and `N.keys`, `N.values`
 * [batch, kv heads, seq, d] of the new positions.
 */
export interface CachedStage {
  readonly program: Program
  /** The first of its blocks, and how many. */
  readonly from: number
  readonly count: number
  /** What it makes beside keys and values. */
  readonly result: 'y' | CachedResult
  /** The kinds of its layers, in the order of their ports. */
  readonly kinds: readonly LayerKind[]
  readonly parameters: readonly StageParameter[]
  readonly adapted: readonly { readonly port: string; readonly path: string; readonly shape: AdaptedShape }[]
}

/** What is wanted of positions: logits of what follows, or what the head would read. */
export type CachedResult = 'logits' | 'hidden'

/** Of the weight that an adapter is beside. */
export interface AdaptedShape {
  readonly inFeatures: number
  readonly outFeatures: number
}

interface CachedOptions {
  readonly config: DecoderConfig
  /** How a weight is fed. */
  readonly storage: (name: string) => Storage
  /** Whether the linear layer of this path may have an adapter. */
  readonly adapted: (path: string) => boolean
  /** Whether the head has a weight of its own, although the checkpoint ties it to the embedding. */
  readonly separateHead: boolean
  /**
   * All blocks and the head in one program, the fastest; or a program for each block, which are the same for all, so that weights need not
   * be in memory together.
   */
  readonly parts: 'whole' | 'blocks'
  readonly result: CachedResult
}

/** Writes a decoder for generation. Parts that compute the same share their programs. */
export function cachedStages(options: CachedOptions): readonly CachedStage[] {
  const { result } = options
  const { numHiddenLayers: layers } = options.config
  const share = sharing()
  if (options.parts === 'whole') return [writeStage(options, { from: 0, count: layers, result }, share)]
  const blocks = Array.from({ length: layers }, (_, from) => ({ from, count: 1, result: 'y' as const }))
  return [...blocks, { from: layers, count: 0, result }].map((part) => writeStage(options, part, share))
}

type Part = Pick<CachedStage, 'from' | 'count' | 'result'>

function writeStage(options: CachedOptions, part: Part, share: (made: Program) => Program): CachedStage {
  const { config } = options
  const { from, count, result } = part
  const writer = new StageWriter(options)
  const last = from + count === config.numHiddenLayers
  const input = writer.f32('x', count === 0 ? ['rows', config.hiddenSize] : ['batch', 'seq', config.hiddenSize])
  let x = from === 0 ? b.scale(input, config.multipliers.input) : input
  for (let i = 0; i < count; i++) {
    x = writer.block(x, { place: `${i}.`, index: from + i, onlyRows: last && i === count - 1 })
  }
  const y = result === 'y' ? x : writer.end(x, result)
  const name = count === 0 ? 'cached.head' : result === 'y' ? 'cached.block' : 'cached.decoder'
  const outputs = [{ name: result, value: y }, ...writer.kept]
  const { kinds, parameters, adapted } = writer
  return { ...part, program: share(program({ name, inputs: writer.ports, outputs })), kinds, parameters, adapted }
}

/** The ports of one program, collected while its computation is written. */
class StageWriter {
  readonly kept: Port[] = []
  readonly kinds: LayerKind[] = []
  readonly parameters: StageParameter[] = []
  readonly adapted: CachedStage['adapted'][number][] = []
  readonly #inputs = new Map<string, Value>()
  readonly #o: CachedOptions

  constructor(options: CachedOptions) {
    this.#o = options
  }

  get ports(): Port[] {
    const weights = this.parameters.flatMap(({ inputs }) => inputs.map(({ port, value }) => ({ name: port, value })))
    return [...Array.from(this.#inputs, ([name, value]) => ({ name, value })), ...weights]
  }

  block(
    x: Value,
    { place, index, onlyRows }: { readonly place: string; readonly index: number; readonly onlyRows: boolean },
  ): Value {
    const { config } = this.#o
    const kind = config.layers[index]
    if (kind === undefined) throw internalError(`no layer ${index}`)
    const prefix = `${config.trunk}.layers.${index}.`
    const rows = onlyRows ? this.#input('rows', 'i64', ['rows']) : undefined
    const context: BlockContext = { ...this.#seen(kind, place), rows }
    return this.#write({ prefix, place }, (layers) => families[config.modelType].block(layers, config, x, context))
  }

  /** What is behind the last block. */
  end(x: Value, result: CachedResult): Value {
    const { config } = this.#o
    const family = families[config.modelType]
    return this.#write({ prefix: '', place: '' }, (layers) =>
      result === 'hidden' ? family.hidden(layers, config, x) : family.head(layers, config, x),
    )
  }

  f32(name: string, shape: Shape): Value {
    return this.#input(name, 'f32', shape)
  }

  #input(name: string, dtype: DType, shape: Shape): Value {
    const known = this.#inputs.get(name) ?? b.input(name, { dtype, shape })
    this.#inputs.set(name, known)
    return known
  }

  /** What a block sees of positions and of the cache. */
  #seen(kind: LayerKind, place: string): Pick<BlockContext, 'rope' | 'attend'> {
    const { config } = this.#o
    if (!this.kinds.includes(kind)) this.kinds.push(kind)
    const number = this.kinds.indexOf(kind)
    const angles = ['batch', 'seq', (kind.rope?.channels ?? 0) / 2]
    const rope = kind.rope && { cos: this.f32(`cos.${number}`, angles), sin: this.f32(`sin.${number}`, angles) }
    const places = ['batch', config.numKeyValueHeads, 'past', config.headDim]
    const attend = attendWithCache(config, {
      past: { keys: this.f32(`${place}past.keys`, places), values: this.f32(`${place}past.values`, places) },
      lengths: this.#input('lengths', 'i64', [2]),
      mask: this.f32(`mask.${number}`, ['batch', 1, product([groupSize(config), 'seq']), 'total']),
      keep: (keys, values) => {
        this.kept.push({ name: `${place}keys`, value: keys }, { name: `${place}values`, value: values })
      },
    })
    return { rope, attend }
  }

  #write(at: { readonly prefix: string; readonly place: string }, write: (layers: Layers) => Value): Value {
    const { config, storage, separateHead } = this.#o
    const tied = config.tieWordEmbeddings && !separateHead
    const rename = (name: string): string => (tied && name === headName ? embeddingName(config) : name)
    const stage = new StageLayers({ ...at, policy: { storage, trainable: () => false }, rename })
    const adapterOf = (module: string, shape: AdaptedShape): FedAdapter | undefined => {
      const path = at.prefix + module
      if (!this.#o.adapted(path)) return undefined
      const port = at.place + module
      this.adapted.push({ port, path, shape })
      return {
        a: this.f32(`${port}.lora_A`, ['rank', shape.inFeatures]),
        b: this.f32(`${port}.lora_B`, ['rank', shape.outFeatures]),
      }
    }
    const scalesFor = (x: Value): Value =>
      x.type.shape.length === 2 ? this.f32('scales.rows', ['rows', 'rank']) : this.f32('scales', ['batch', 1, 'rank'])
    const y = write(withFedAdapters(stage, adapterOf, scalesFor))
    this.parameters.push(...stage.parameters)
    return y
  }
}
