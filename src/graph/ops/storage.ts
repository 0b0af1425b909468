import type { Emitter } from '../emitter.ts'
import { f32, need, pair, single, type OpDefinitions } from './definition.ts'

/** The number that ONNX has for bytes. */
const u8 = 2

/** From what is stored to what is computed with. */
export const storage = {
  /** bf16 or f16 bits in u16 -> f32, exactly. */
  decode: {
    memory: { scratch: 0.5 },
    infer: (inputs) => {
      const { dtype, shape } = single(inputs)
      need(dtype === 'u16', 'decode', inputs)
      return [f32(shape)]
    },
    vjp: 'discrete',
    emit: (e, { format }) => {
      const bits = e.temporary()
      e.node('BitCast', e.inputs, [bits], { to: format === 'bf16' ? 16 : 10 })
      e.node('Cast', [bits], e.outputs, { to: 1 })
    },
  },
  /** u8 or i8 -> f32. */
  toFloat: {
    memory: 'own',
    infer: (inputs) => [f32(single(inputs).shape)],
    vjp: 'discrete',
    emit: (e) => e.node('Cast', e.inputs, e.outputs, { to: 1 }),
  },
  /**
   * (codes u8 [rows, 3 n / 4], scales f32 [rows, n / 16]) -> (code - 32) * scale, f32 [rows, n]. The first three quarters of a row of codes
   * are the low six bits of the bytes. Those of the last are the high bits of three: from the lowest on, those of the same place in each
   * third of the bytes. So most bytes need a mask only.
   */
  sixBits: {
    // The codes as bytes, and a zero for each group.
    memory: { scratch: 0.27 },
    infer: (inputs) => {
      const [codes, scales] = pair(inputs)
      const [[rows, bytes], [scaleRows, groups]] = [codes.shape, scales.shape]
      const fits = rows === scaleRows && 4 * Number(bytes) === 3 * 16 * Number(groups)
      need(fits && codes.dtype === 'u8' && scales.dtype === 'f32', 'sixBits', inputs)
      return [f32([rows ?? 0, 16 * Number(groups)])]
    },
    vjp: 'discrete',
    emit: (e) => {
      const [codes = '', scales = ''] = e.inputs
      const made = (type: string, inputs: readonly string[], attributes?: Parameters<Emitter['node']>[3]): string => {
        const output = e.temporary()
        e.node(type, inputs, [output], attributes)
        return output
      }
      const byte = (value: number): string => made('Cast', [e.ints([value])], { to: u8 })
      const shifted = (x: string, by: number, direction: 'LEFT' | 'RIGHT'): string =>
        made('BitShift', [x, byte(by)], { direction })
      const thirds = [e.temporary(), e.temporary(), e.temporary()] as const
      e.node('Split', [shifted(codes, 6, 'RIGHT')], thirds, { axis: 1, num_outputs: 3 })
      const [first, second, third] = thirds
      const low = made('BitwiseOr', [first, shifted(second, 2, 'LEFT')])
      const last = made('BitwiseOr', [low, shifted(third, 4, 'LEFT')])
      const all = made('Concat', [made('BitwiseAnd', [codes, byte(63)]), last], { axis: 1 })
      const zeros = made('Expand', [byte(32), made('Shape', [scales])])
      e.node('DequantizeLinear', [all, scales, zeros], e.outputs, { axis: 1, block_size: 16 })
    },
  },
  /**
   * (codes u8 [bytes], scales f32 [blocks]) -> the weight f32 [rows, columns]. Nothing is emitted: the product after it reads the packed
   * weight, and a program that needs the weight itself is given it (the host unpacks faster than a Gather does).
   */
  fourBitWeight: {
    memory: 'packed',
    infer: (inputs, { blockSize, rows, columns }) => {
      const [codes, scales] = pair(inputs)
      const count = rows * columns
      const fits = codes.shape[0] === Math.ceil(count / 2) && scales.shape[0] === Math.ceil(count / blockSize)
      need(fits && codes.dtype === 'u8' && scales.dtype === 'f32', 'fourBitWeight', inputs)
      return [f32([rows, columns])]
    },
    vjp: 'discrete',
    emit: () => {},
  },
  /**
   * (codes u8 [rows, blocks, bytes], scales f32 [rows, blocks]) -> the weight f32 [rows, columns]. Nothing is emitted: the product after it
   * rounds its other operand to integers of 8 bits too, block by block, so its result is that of the weight to about 0.5 %.
   */
  nBitWeight: {
    memory: 'packed',
    infer: (inputs, { bits, blockSize, rows, columns }) => {
      const [codes, scales] = pair(inputs)
      const blocks = Math.ceil(columns / blockSize)
      const fits =
        codes.shape.join() === [rows, blocks, (blockSize * bits) / 8].join() &&
        scales.shape.join() === [rows, blocks].join()
      need(fits && codes.dtype === 'u8' && scales.dtype === 'f32', 'nBitWeight', inputs)
      return [f32([rows, columns])]
    },
    vjp: 'discrete',
    emit: () => {},
  },
  /**
   * (scales f32 [rows], then i8: high [columns, rows], high and low [2 columns, rows] where there is a `low`; in both orders also high
   * [rows, columns], high and low [2 rows, columns]) -> scales (high + low / 254), the weight f32 [rows, columns]. Nothing is emitted: its
   * products are put together from products of integers (`slices.ts`).
   */
  slicedWeight: {
    memory: 'sliced',
    infer: (inputs, { rows, columns, low, orders }) => {
      const [scales, ...slices] = inputs
      const order = (height: number, width: number): string[] => {
        return [`${height},${width}`, ...(low ? [`${2 * height},${width}`] : [])]
      }
      const shapes = [...order(columns, rows), ...(orders === 2 ? order(rows, columns) : [])]
      const fits = slices.map(({ shape }) => shape.join()).join(' ') === shapes.join(' ')
      const typed = slices.every(({ dtype }) => dtype === 'i8') && scales?.dtype === 'f32'
      need(fits && typed && scales.shape.join() === String(rows), 'slicedWeight', inputs)
      return [f32([rows, columns])]
    },
    vjp: 'discrete',
    emit: () => {},
  },
} satisfies Partial<OpDefinitions>
