import { GraphWriter, onnxTypes, type ExternalPlace, type OnnxTensor } from '../../graph/onnx/writer.ts'
import { portableLowerings } from '../../graph/onnx/portable.ts'
import { groupSize } from '../../model/attention.ts'
import type { DecoderConfig, Rope } from '../../model/decoder.ts'
import { embeddingName } from '../../model/names.ts'
import { cacheNames, type FileDecoder } from './decoder.ts'

/** The lowest f32, as transformers masks: minus infinity would make a fully masked row NaN. */
const lowest = -3.4028234663852886e38

/** Opset 21 is what ONNX Runtime 1.20 and later load, and with it transformers.js 3. */
const version = { opset: 21, irVersion: 10 }

/** A tensor of the file, and where it lies. */
export type PlacedTensor = OnnxTensor & { readonly place: ExternalPlace }

/** Symbolic dimensions, by the names that transformers.js and Optimum give them: what is called `batch_size` must be. */
const [batch, sequence, past, total] = [
  'batch_size',
  'sequence_length',
  'past_sequence_length',
  'total_sequence_length',
] as const

/**
 * The bytes of the model: what a host computes elsewhere (rows of the embedding, positions, masks) as nodes of ONNX before the program of
 * the decoder, since no program that is trained has need of their integer operations.
 */
export function onnxModel(config: DecoderConfig, decoder: FileDecoder, tensors: readonly PlacedTensor[]): Uint8Array {
  const writer = new GraphWriter()
  const f16 = new Set<string>()
  for (const tensor of tensors) {
    writer.external(tensor, tensor.place)
    if (tensor.dtype === 'f16') f16.add(tensor.name)
  }
  const read = new Set(decoder.program.inputs.map(({ name }) => name))
  for (const name of f16) if (read.has(name)) writer.node('Cast', [name], { to: onnxTypes.f32 }, [asF32(name)])
  writeEmbedding(writer, config, f16.has(embeddingName(config)))
  decoder.ropes.forEach((rope, number) => writePositions(writer, config, rope, number))
  writeMasks(writer, decoder.windows, groupSize(config))
  const rows = 'logits.rows'
  writer.program(decoder.program, {
    nameOf: (port) => (port === 'logits' ? rows : f16.has(port) ? asF32(port) : port),
    lowerings: portableLowerings((cos) => cos.replace('cos', 'positions')),
  })
  const shape = writer.node('Concat', [writer.node('Shape', ['input_ids']), writer.ints([config.vocabSize])], {
    axis: 0,
  })
  writer.node('Reshape', [rows, shape], {}, ['logits'])
  return writer.model({ name: 'decoder', ...ports(config), ...version })
}

function asF32(name: string): string {
  return `${name}.f32`
}

function ports(config: DecoderConfig): {
  readonly inputs: readonly OnnxTensor[]
  readonly outputs: readonly OnnxTensor[]
} {
  const { numKeyValueHeads: heads, headDim, vocabSize } = config
  const ids = (name: string, length: string): OnnxTensor => ({ name, dtype: 'i64', shape: [batch, length] })
  const caches = (of: 'past' | 'present', length: string): OnnxTensor[] =>
    config.layers.flatMap((_, layer) =>
      (['key', 'value'] as const).map((kind): OnnxTensor => {
        return { name: cacheNames(layer, kind)[of], dtype: 'f32', shape: [batch, heads, length, headDim] }
      }),
    )
  return {
    inputs: [
      ids('input_ids', sequence),
      ids('attention_mask', total),
      ids('position_ids', sequence),
      ...caches('past', past),
    ],
    outputs: [{ name: 'logits', dtype: 'f32', shape: [batch, sequence, vocabSize] }, ...caches('present', total)],
  }
}

/** Rows of the embedding, times its scale. */
function writeEmbedding(writer: GraphWriter, config: DecoderConfig, isF16: boolean): void {
  const scale = Math.fround(config.embeddingScale)
  const steps: ((x: string, outputs?: readonly string[]) => string)[] = [
    (x, outputs) => writer.node('Gather', [x, 'input_ids'], { axis: 0 }, outputs),
  ]
  if (isF16) steps.push((x, outputs) => writer.node('Cast', [x], { to: onnxTypes.f32 }, outputs))
  if (scale !== 1) steps.push((x, outputs) => writer.node('Mul', [x, writer.float(scale)], {}, outputs))
  steps.reduce((x, step, i) => step(x, i === steps.length - 1 ? ['x'] : undefined), embeddingName(config))
}

/** Rows of the tables of cosines and sines. Where long examples have other angles, their tables lie behind the others. */
function writePositions(writer: GraphWriter, config: DecoderConfig, { scaling }: Rope, number: number): void {
  const name = `positions.${number}`
  if (scaling.type !== 'longrope') {
    writer.node('Identity', ['position_ids'], {}, [name])
    return
  }
  const last = writer.node('ReduceMax', ['position_ids', writer.ints([1])], { keepdims: 1 })
  const isLong = writer.node('GreaterOrEqual', [last, writer.int(scaling.originalMaxPositions)])
  const skipped = writer.node('Where', [isLong, writer.int(tableRows(config)), writer.int(0)])
  writer.node('Add', ['position_ids', skipped], {}, [name])
}

/** Positions that a model knows, and one more: transformers.js counts those of Gemma 3 from one. */
export function tableRows({ maxPositionEmbeddings }: DecoderConfig): number {
  return maxPositionEmbeddings + 1
}

/** What is added to scores: 0 where a query sees a key, very negative elsewhere, [batch, 1, group * seq, total] of each window. */
function writeMasks(writer: GraphWriter, windows: FileDecoder['windows'], group: number): void {
  const size = (of: string, axis: number): string =>
    writer.node('Gather', [writer.node('Shape', [of]), writer.int(axis)], { axis: 0 })
  const [before, all] = [size(cacheNames(0, 'key').past, 2), size('attention_mask', 1)]
  const range = (start: string): string => writer.node('Range', [start, all, writer.int(1)])
  const keys = range(writer.int(0))
  const queries = writer.node('Unsqueeze', [range(before), writer.ints([1])])
  const tokens = writer.node('Cast', ['attention_mask'], { to: onnxTypes.bool })
  const given = writer.node('Unsqueeze', [tokens, writer.ints([1, 2])])
  const earlier = writer.node('And', [given, writer.node('LessOrEqual', [keys, queries])])
  windows.forEach((window, number) => {
    let seen = earlier
    if (window !== undefined) {
      const first = writer.node('Sub', [queries, writer.int(window)])
      seen = writer.node('And', [earlier, writer.node('Greater', [keys, first])])
    }
    const mask = writer.node('Where', [seen, writer.float(0), writer.float(lowest)])
    const copies = Array.from({ length: group }, () => mask)
    writer.node('Concat', copies, { axis: 2 }, [`mask.${number}`])
  })
}
