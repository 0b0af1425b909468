import type { DecoderConfig, Rope } from '../../model/decoder.ts'
import { embeddingName } from '../../model/names.ts'
import { ropeTables } from '../../model/rope.ts'
import type { WeightSource } from '../../model/sources/source.ts'
import { quantizeNBits } from '../../storage/nbit.ts'
import { bytesOf, f32ToBytes, indexOfOverflow } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { elements } from '../../util/shape.ts'
import { rowsOf } from '../rows.ts'
import type { FileDecoder, FileWeight, WeightForm } from './decoder.ts'
import { tableRows } from './graph.ts'

type Write = (bytes: Uint8Array) => Promise<void>

/** A tensor of the file, and how its bytes are made, piece by piece. */
export interface FileTensor {
  readonly name: string
  readonly dtype: 'f32' | 'f16' | 'u8'
  readonly shape: readonly number[]
  readonly data: (write: Write) => Promise<void>
}

const widths = { f32: 4, f16: 2, u8: 1 } as const

export function byteLength({ dtype, shape }: Pick<FileTensor, 'dtype' | 'shape'>): number {
  return widths[dtype] * elements(shape)
}

/** All tensors of a file, in the order in which the decoder reads them. */
export function fileTensors(source: WeightSource, decoder: FileDecoder, form: WeightForm): FileTensor[] {
  const { config } = source
  const embedding = embeddingName(config)
  const scales = new Map<string, Float32Array>()
  const weights = decoder.weights.map((weight): FileTensor => ({ ...weight, data: dataOf(source, weight, scales) }))
  const tables = decoder.ropes.flatMap((rope, number) => tablesOf(config, rope, number))
  if (decoder.weights.some(({ name }) => name === embedding)) return [...weights, ...tables]
  // Rows of integers would have to be scaled one by one: in f16 they take the place of 8 bits and a bit more, and every build reads them.
  const dtype = form === 'f32' ? 'f32' : 'f16'
  const rows = { name: embedding, dtype, shape: [config.vocabSize, config.hiddenSize], part: 'rows' } as const
  return [{ ...rows, data: dataOf(source, { ...rows, weight: rows }, scales) }, ...weights, ...tables]
}

/** cos and sin of each position. */
function tablesOf(config: DecoderConfig, rope: Rope, number: number): FileTensor[] {
  const { scaling } = rope
  const count = tableRows(config)
  const lengths =
    scaling.type === 'longrope'
      ? [scaling.originalMaxPositions, scaling.originalMaxPositions + 1]
      : [config.maxPositionEmbeddings]
  return (['cos', 'sin'] as const).map((of) => ({
    name: `${of}.${number}`,
    dtype: 'f32',
    shape: [count * lengths.length, rope.channels / 2],
    data: async (write) => {
      for (const length of lengths) await write(bytesOf(ropeTables(rope, count, length)[of]))
    },
  }))
}

function dataOf(source: WeightSource, { weight, dtype, part, name }: FileWeight, scales: Map<string, Float32Array>) {
  const encode = (data: Float32Array): Uint8Array => (dtype === 'f16' ? asF16(data, weight.name) : bytesOf(data))
  return async (write: Write): Promise<void> => {
    switch (part) {
      case 'rows':
        for await (const { data } of rowsOf(source, weight)) await write(encode(data))
        return
      case 'transposed':
        return writeTransposed(source, weight, (data) => write(encode(data)))
      case 'codes8':
      case 'codes4':
        // The scales come with the codes, and are a small part of them: they are written next.
        scales.set(weight.name, await writeCodes(source, weight, part === 'codes8' ? 8 : 4, write))
        return
      case 'scales': {
        const values = scales.get(weight.name)
        if (values === undefined) throw internalError(`${name} is written before the integers that it scales`)
        scales.delete(weight.name)
        await write(bytesOf(values))
      }
    }
  }
}

/** Elements that are written at once. */
const mostElements = 2 ** 20

/** The columns of a weight as rows: all of it is in memory. */
async function writeTransposed(
  source: WeightSource,
  weight: FileWeight['weight'],
  write: (data: Float32Array) => Promise<void>,
): Promise<void> {
  const [rows = 0, columns = 0] = weight.shape
  const turned = new Float32Array(rows * columns)
  for await (const { start, end, data } of rowsOf(source, weight)) {
    for (let row = start; row < end; row++) {
      for (let i = 0, at = (row - start) * columns; i < columns; i++, at++) turned[i * rows + row] = data[at]!
    }
  }
  for (let start = 0; start < turned.length; start += mostElements)
    await write(turned.subarray(start, start + mostElements))
}

/** -> the scales */
async function writeCodes(
  source: WeightSource,
  weight: FileWeight['weight'],
  bits: 8 | 4,
  write: Write,
): Promise<Float32Array> {
  const [columns = 0] = weight.shape.slice(1)
  const scales: Float32Array[] = []
  for await (const { start, end, data } of rowsOf(source, weight)) {
    const made = quantizeNBits(data, [end - start, columns], bits)
    scales.push(made.scales)
    await write(made.codes)
  }
  const all = new Float32Array(scales.reduce((total, { length }) => total + length, 0))
  scales.reduce((at, some) => (all.set(some, at), at + some.length), 0)
  return all
}

/** @throws LowrankError `config`: a number is too large. */
function asF16(data: Float32Array, name: string): Uint8Array {
  const large = indexOfOverflow(data, 'F16')
  if (large === -1) return f32ToBytes(data, 'F16')
  throw new LowrankError('config', `dtype: ${data[large]} of ${name} is too large for f16`, {
    hint: 'Take f32, which holds larger numbers.',
  })
}
