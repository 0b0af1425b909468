import { f32, need, pair, single, type OpDefinitions } from './definition.ts'

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
} satisfies Partial<OpDefinitions>
