import { unpackRow } from '../storage/formats.ts'
import type { StoredWeight } from '../storage/stored.ts'
import { internalError } from '../util/errors.ts'
import { f32Tensor, type HostTensor } from './onnxruntime/runtime.ts'

/** Rows of an embedding, gathered from the stored format, times its scale. */
export function embedded(
  embedding: StoredWeight,
  ids: Int32Array,
  { scale, rows, seq }: { readonly scale: number; readonly rows: number; readonly seq: number },
): HostTensor {
  const [vocabulary = 0, width = 0] = embedding.shape
  const out = new Float32Array(ids.length * width)
  ids.forEach((id, i) => {
    if (id < 0 || id >= vocabulary) throw internalError(`token ${id} is outside the vocabulary of ${vocabulary}`)
    unpackRow(embedding, id, out.subarray(i * width, (i + 1) * width))
  })
  return f32Tensor(scaled(out, scale), [rows, seq, width])
}

/** The same values times a factor, in place, rounded to f32 as PyTorch does it. */
export function scaled(values: Float32Array, factor: number): Float32Array {
  const by = Math.fround(factor)
  if (by !== 1) for (let i = 0; i < values.length; i++) values[i] = values[i]! * by
  return values
}
