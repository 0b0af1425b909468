import type { Emitter } from '../emitter.ts'
import type { SliceAttributes } from '../value.ts'
import { made } from './definition.ts'

/*
 * Products of f32 put together from products of integers, which processors with instructions for them compute several times faster. Each row
 * of x is cut as the rows of a weight are: x = s (xh + xl / 254), so that with w = t (wh + wl / 254)
 *
 *     x wT = s t (xh whT + (xl whT + xh wlT) / 254), but for xl wlT / 254^2.
 *
 * The terms in brackets are one product, of [xl xh] with wh above wl. Integers of 8 bits with a sign are fed as u8 around 128: of the kernels
 * for the four combinations of signs only that of u8 x i8 is fast. On x86 without VNNI it is wrong (it adds up pairs of products in 16 bits),
 * and that of u8 x u8, which is right everywhere, takes its place.
 */

/** Of 8 bits, and what a step of the second slice is of the first. */
const [most, step] = [127, 1 / 254]

/** Below this a row counts as zeros: 127 divided by it is still a number. */
const tiny = 1e-35

/**
 * x wT (`transposed`), or x w with a weight in slices, whose tensors are `scales` and `slices`: see the op. `unsigned`: whether by the kernel that
 * is exact on every processor.
 */
export function emitSliced(
  e: Emitter,
  { transposed, unsigned }: { readonly transposed: boolean; readonly unsigned: boolean },
  { rows, columns, low, orders }: SliceAttributes,
  [scales = '', ...slices]: readonly string[],
): void {
  const [x = ''] = e.inputs
  const each = low ? 2 : 1
  if (transposed) {
    const [high = '', both = high] = slices
    sum(e, x, { high, both: low ? both : undefined, columnScales: scales, unsigned })
    return
  }
  // The scales lie along the axis that is summed.
  const [scaled = ''] = e.once(`${x} scaled by ${scales}`, () => [made(e, 'Mul', [x, scales])])
  const own = orders === 2 ? slices.slice(each) : turned(e, slices, { rows, columns, low })
  const [high = '', both = high] = own
  sum(e, scaled, { high, both: low ? both : undefined, columnScales: e.float(1), unsigned })
}

interface Operand {
  readonly high: string
  /** `high` above `low`; undefined where there is no `low`. */
  readonly both: string | undefined
  /** f32 [n], or a scalar. */
  readonly columnScales: string
  readonly unsigned: boolean
}

function sum(e: Emitter, x: string, { high, both, columnScales, unsigned }: Operand): void {
  const [xHigh, xLow, rowScales] = cut(e, x)
  const product = (left: string, right: string, scale: number): string => {
    const result = e.temporary()
    const scales = [e.float(scale), columnScales]
    const operands = unsigned
      ? [left, aroundMiddle(e, right), ...scales, middle(e), middle(e)]
      : [left, right, ...scales, middle(e)]
    e.contrib('MatMulIntegerToFloat', operands, [result])
    return result
  }
  const first = product(xHigh, high, 1)
  const second =
    both === undefined
      ? product(xLow, high, step)
      : product(
          e.once(`${x} cut, side by side`, () => [made(e, 'Concat', [xLow, xHigh], { axis: -1 })])[0]!,
          both,
          step,
        )
  e.node('Mul', [made(e, 'Add', [first, second]), rowScales], e.outputs)
}

/** The slices of x, u8, and the scale of each row, f32 [.., 1]. Once for all products with x. */
function cut(e: Emitter, x: string): readonly [high: string, low: string, scales: string] {
  const [high = '', low = '', scales = ''] = e.once(`${x} cut`, () => {
    const largest = made(e, 'ReduceMax', [made(e, 'Abs', [x]), e.ints([-1])], { keepdims: 1 })
    const perStep = made(e, 'Div', [e.float(most), made(e, 'Max', [largest, e.float(tiny)])])
    const scaled = made(e, 'Mul', [x, perStep])
    const first = made(e, 'QuantizeLinear', [scaled, e.float(1), middle(e)])
    const rest = made(e, 'Sub', [scaled, made(e, 'DequantizeLinear', [first, e.float(1), middle(e)])])
    const second = made(e, 'QuantizeLinear', [rest, e.float(step), middle(e)])
    return [first, second, made(e, 'Mul', [largest, e.float(1 / most)])]
  })
  return [high, low, scales]
}

/** Slices [columns, rows] as [rows, columns]. */
function turned(
  e: Emitter,
  [high = '', both = high]: readonly string[],
  { rows, columns, low }: Omit<SliceAttributes, 'orders'>,
): readonly string[] {
  if (!low) return [made(e, 'Transpose', [high], { perm: [1, 0] })]
  const apart = made(e, 'Reshape', [both, e.ints([2, columns, rows])])
  const all = made(e, 'Reshape', [made(e, 'Transpose', [apart], { perm: [0, 2, 1] }), e.ints([2 * rows, columns])])
  return [made(e, 'Slice', [all, e.ints([0]), e.ints([rows]), e.ints([0])]), all]
}

/** An i8 as the u8 that stands for it: 128 more, which is another first bit. */
function aroundMiddle(e: Emitter, integers: string): string {
  const write = (): readonly string[] => {
    return [made(e, 'BitwiseXor', [made(e, 'BitCast', [integers], { to: 2 }), middle(e)])]
  }
  return e.once(`${integers} around the middle`, write)[0]!
}

/** What stands for 0, a u8. */
function middle(e: Emitter): string {
  return e.once('the middle of u8', () => [made(e, 'Cast', [e.ints([128])], { to: 2 })])[0]!
}
