import { b } from '../../graph/build.ts'
import { product, type Shape } from '../../graph/dims.ts'
import { program, type Port, type Program } from '../../graph/program.ts'
import { lastDim, type DType, type Value } from '../../graph/value.ts'
import { attendWithJoinedCache, groupSize } from '../../model/attention.ts'
import type { DecoderConfig, LayerKind, Layers, Rope } from '../../model/decoder.ts'
import { families } from '../../model/families/index.ts'
import { headName, sourceName } from '../../model/names.ts'
import type { WeightSpec } from '../../model/weight-specs.ts'
import { nBitBlock } from '../../storage/nbit.ts'
import { internalError } from '../../util/errors.ts'

/** How the weights of products are stored: as floats, or in integers of so many bits (the head: of 8), each block of 32 with a scale. */
export type WeightForm = 'f32' | 'f16' | { readonly bits: 8 | 4 }

/** A tensor of the file that holds a weight: as it is, its transpose, or the integers or scales that stand for it. */
export interface FileWeight {
  readonly name: string
  readonly dtype: 'f32' | 'f16' | 'u8'
  readonly shape: readonly number[]
  readonly weight: WeightSpec
  readonly part: 'rows' | 'transposed' | 'codes8' | 'codes4' | 'scales'
}

/**
 * A whole decoder with a cache that is returned grown, as one program. Inputs:
 *
 * - `x` [batch, seq, hidden], embedded tokens
 * - `cos.R`, `sin.R` [positions, channels / 2] of each of `ropes`: tables, of which `portableLowerings` reads rows
 * - `mask.W` [batch, 1, 1, seq, total] of each of `windows`
 * - `past_key_values.N.key`, `.value` [batch, kv heads, past, d]
 * - `lengths` i64 [2], which no ONNX form of an op reads
 * - the weights, as tensors of the file: those of f16 as f32
 *
 * Results: `logits` [batch * seq, vocabulary], and `present.N.key`, `.value` [batch, kv heads, total, d].
 */
export interface FileDecoder {
  readonly program: Program
  readonly weights: readonly FileWeight[]
  readonly ropes: readonly Rope[]
  /** Keys that a query sees, its own included; undefined: all up to its own. */
  readonly windows: readonly (number | undefined)[]
}

export const cacheNames = (layer: number, kind: 'key' | 'value') =>
  ({ past: `past_key_values.${layer}.${kind}`, present: `present.${layer}.${kind}` }) as const

export function fileDecoder(config: DecoderConfig, form: WeightForm): FileDecoder {
  const writer = new DecoderWriter(config, form)
  const family = families[config.modelType]
  let x = b.scale(writer.input('x', 'f32', ['batch', 'seq', config.hiddenSize]), config.multipliers.input)
  config.layers.forEach((kind, index) => {
    x = family.block(writer.layers(`${config.trunk}.layers.${index}.`), config, x, writer.context(kind, index))
  })
  const rows = b.reshape(x, [product(['batch', 'seq']), config.hiddenSize])
  const logits = family.head(writer.layers(''), config, rows)
  const outputs = [{ name: 'logits', value: logits }, ...writer.kept]
  const { inputs, weights, ropes, windows } = writer
  return { program: program({ name: 'decoder', inputs, outputs }), weights, ropes, windows }
}

class DecoderWriter {
  readonly ropes: Rope[] = []
  readonly windows: (number | undefined)[] = []
  readonly kept: Port[] = []
  readonly #config: DecoderConfig
  readonly #form: WeightForm
  readonly #inputs = new Map<string, Value>()
  readonly #weights = new Map<string, FileWeight>()

  constructor(config: DecoderConfig, form: WeightForm) {
    this.#config = config
    this.#form = form
  }

  get inputs(): Port[] {
    return Array.from(this.#inputs, ([name, value]) => ({ name, value }))
  }

  get weights(): FileWeight[] {
    return [...this.#weights.values()]
  }

  input(name: string, dtype: DType, shape: Shape): Value {
    const known = this.#inputs.get(name) ?? b.input(name, { dtype, shape })
    this.#inputs.set(name, known)
    return known
  }

  /** What a block sees of positions and of the cache. */
  context(kind: LayerKind, layer: number): Parameters<(typeof families)['llama']['block']>[3] {
    const config = this.#config
    const window = numberOf(this.windows, kind.window)
    const places = ['batch', config.numKeyValueHeads, 'past', config.headDim]
    const past = (of: 'key' | 'value'): Value => this.input(cacheNames(layer, of).past, 'f32', places)
    const attend = attendWithJoinedCache(config, {
      past: { keys: past('key'), values: past('value') },
      lengths: this.input('lengths', 'i64', [2]),
      mask: this.input(`mask.${window}`, 'f32', ['batch', 1, product([groupSize(config), 'seq']), 'total']),
      keep: (keys, values) => {
        const [key, value] = [cacheNames(layer, 'key').present, cacheNames(layer, 'value').present]
        this.kept.push({ name: key, value: keys }, { name: value, value: values })
      },
    })
    return { rope: kind.rope && this.#tables(kind.rope), attend, rows: undefined }
  }

  #tables(rope: Rope): { readonly cos: Value; readonly sin: Value } {
    const number = numberOf(this.ropes, rope)
    const shape = [`positions ${number}`, rope.channels / 2]
    return { cos: this.input(`cos.${number}`, 'f32', shape), sin: this.input(`sin.${number}`, 'f32', shape) }
  }

  /** Weights under `prefix`. */
  layers(prefix: string): Layers {
    const parameter = (name: string, shape: readonly number[]): Value =>
      this.#weight({ name: this.#stored(prefix + name), shape }, 'rows', 'f32')
    return {
      parameter,
      linear: (module, x, { outFeatures, bias }) => {
        const weight = { name: prefix + `${module}.weight`, shape: [outFeatures, Number(lastDim(x.type))] }
        const y = this.#product(x, weight)
        return bias ? b.add(y, parameter(`${module}.bias`, [outFeatures])) : y
      },
    }
  }

  #product(x: Value, weight: WeightSpec): Value {
    const form = this.#form
    // The head decides between tokens: it keeps more.
    if (typeof form === 'object') return b.linear(x, this.#integers(weight, weight.name === headName ? 8 : form.bits))
    // The head is stored as it is, since it may be the embedding too, of which rows are read; products of rows take it so.
    const asStored = { ...weight, name: this.#stored(weight.name) }
    if (x.type.shape.length === 2) return b.linear(x, this.#weight(asStored, 'rows', form))
    return b.linear(x, this.#weight(weight, 'transposed', form), { transposed: false })
  }

  #integers(weight: WeightSpec, bits: 8 | 4): Value {
    const { name, shape } = weight
    const [rows = 0, columns = 0] = shape
    const blocks = Math.ceil(columns / nBitBlock)
    const stored = { name: this.#stored(name), shape }
    const codes = [rows, blocks, (nBitBlock * bits) / 8]
    const part = bits === 8 ? 'codes8' : 'codes4'
    const values = [
      this.#add({ name: `${name}.codes`, dtype: 'u8', shape: codes, weight: stored, part }),
      this.#add({ name: `${name}.scales`, dtype: 'f32', shape: [rows, blocks], weight: stored, part: 'scales' }),
    ] as const
    return b.nBitWeight(...values, { bits, blockSize: nBitBlock, rows, columns })
  }

  #weight(weight: WeightSpec, part: 'rows' | 'transposed', dtype: 'f32' | 'f16'): Value {
    const { name, shape } = weight
    if (part === 'rows') return this.#add({ name, dtype, shape, weight, part })
    return this.#add({ name: `${name}.transposed`, dtype, shape: shape.toReversed(), weight, part })
  }

  #add(weight: FileWeight): Value {
    const known = this.#weights.get(weight.name)
    if (known !== undefined && known.dtype !== weight.dtype) throw internalError(`${weight.name} in two forms`)
    this.#weights.set(weight.name, weight)
    return this.input(weight.name, weight.dtype === 'u8' ? 'u8' : 'f32', weight.shape)
  }

  #stored(name: string): string {
    return sourceName(this.#config, name)
  }
}

/** The place of an item in a list, to which it is added if none equals it. */
function numberOf<T>(list: T[], item: T): number {
  const text = JSON.stringify(item)
  const known = list.findIndex((one) => JSON.stringify(one) === text)
  return known === -1 ? list.push(item) - 1 : known
}
