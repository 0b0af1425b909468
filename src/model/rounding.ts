import { bytesToF32, f32ToBytes, type FloatDtype, indexOfOverflow } from '../util/dtype.ts'
import { LowrankError } from '../util/errors.ts'

/** Sums over the elements of weights that adapters change. */
export interface ChangeSums {
  /** Weights, and elements of them. */
  weights: number
  elements: number
  /** Squares of what the weights were, of what they become, of what was added, and of what rounding took from or put to that. */
  before: number
  after: number
  delta: number
  rounding: number
  /** Elements that adapters change, and those of them that are stored as if none had. */
  changed: number
  lost: number
}

export function noChange(): ChangeSums {
  return { weights: 0, elements: 0, before: 0, after: 0, delta: 0, rounding: 0, changed: 0, lost: 0 }
}

/**
 * Rows of a merged weight as they are stored.
 *
 * @throws LowrankError `config`: a number is too large for that; `first` is the place of the first of them in the weight.
 */
export function stored(
  values: Float32Array,
  dtype: FloatDtype,
  { name, first }: { readonly name: string; readonly first: number },
): Uint8Array {
  const tooLarge = indexOfOverflow(values, dtype)
  if (tooLarge === -1) return f32ToBytes(values, dtype)
  const value = `element ${first + tooLarge} of ${name} is ${values[tooLarge]}`
  throw new LowrankError('config', `dtype: ${value}, too large for ${dtype}`, {
    hint: 'Choose bf16 or f32, which hold larger numbers.',
  })
}

/** Elements of a change that are looked at in one piece, through memory that the next piece uses again. */
const piece = 2 ** 14

/** Adds what a change of some elements comes to, stored as `bytes`. */
export function addChange(
  sums: ChangeSums,
  { before, after }: { readonly before: Float32Array; readonly after: Float32Array },
  { bytes, dtype }: { readonly bytes: Uint8Array; readonly dtype: FloatDtype },
): void {
  const size = bytes.byteLength / after.length
  const halves = new Uint16Array(piece)
  const [one, other] = [new Float32Array(piece), new Float32Array(piece)]
  for (let start = 0; start < after.length; start += piece) {
    const end = Math.min(after.length, start + piece)
    const count = end - start
    const part = { before: before.subarray(start, end), after: after.subarray(start, end) }
    const unchanged = f32ToBytes(part.before, dtype, halves.subarray(0, count))
    addPiece(sums, {
      ...part,
      kept: bytesToF32(bytes.subarray(size * start, size * end), dtype, one.subarray(0, count)),
      unchanged: bytesToF32(unchanged, dtype, other.subarray(0, count)),
    })
  }
  sums.elements += after.length
}

/** Elements before and after a change, and as what they are kept that were changed, and that would not have been. */
type Piece = Readonly<Record<'before' | 'after' | 'kept' | 'unchanged', Float32Array>>

function addPiece(sums: ChangeSums, { before, after, kept: held, unchanged }: Piece): void {
  let [wasSum, isSum, deltaSum, roundingSum, changed, lost] = [0, 0, 0, 0, 0, 0]
  for (let i = 0; i < after.length; i++) {
    const was = before[i]!
    const is = after[i]!
    const kept = held[i]!
    const delta = is - was
    const rounding = kept - is
    wasSum += was * was
    isSum += is * is
    deltaSum += delta * delta
    roundingSum += rounding * rounding
    if (delta === 0) continue
    changed++
    if (kept === unchanged[i]) lost++
  }
  sums.before += wasSum
  sums.after += isSum
  sums.delta += deltaSum
  sums.rounding += roundingSum
  sums.changed += changed
  sums.lost += lost
}

/** The sums of several. */
export function totalOf(all: Iterable<ChangeSums>): ChangeSums {
  const total = noChange()
  for (const sums of all) for (const key of Object.keys(total) as (keyof ChangeSums)[]) total[key] += sums[key]
  return total
}
