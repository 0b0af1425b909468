import { f32, need, single, type OpDefinitions } from './definition.ts'

/** From what is stored to what is computed with. */
export const storage: OpDefinitions<'decode' | 'toFloat'> = {
  /** bf16 or f16 bits in u16 -> f32, exactly. */
  decode: {
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
  /** u8 -> f32. */
  toFloat: {
    infer: (inputs) => [f32(single(inputs).shape)],
    vjp: 'discrete',
    emit: (e) => e.node('Cast', e.inputs, e.outputs, { to: 1 }),
  },
}
