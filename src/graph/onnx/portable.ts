import { internalError } from '../../util/errors.ts'
import type { Emitter } from '../emitter.ts'
import { emitByShare } from '../ops/gated.ts'
import { ops } from '../ops/index.ts'
import type { Lowerings } from './writer.ts'

/**
 * Forms of ops for models that other builds of ONNX Runtime load, with WebGPU too: no operator newer than opset 21, and of its own ones
 * those only that every build has (FusedMatMul has no kernel for WebGPU, whose second result of SimplifiedLayerNormalization is another).
 * The optimizer of a runtime makes its own forms of them again.
 *
 * `positionsOf`: the name of the position ids [batch, seq] of a table of cosines, since tables [positions, channels / 2] are read where
 * positions are used.
 */
export function portableLowerings(positionsOf: (cos: string) => string): Lowerings {
  return {
    gated: emitByShare,
    rmsNorm: (e, { epsilon }) =>
      e.node('SimplifiedLayerNormalization', e.inputs, e.outputs.slice(0, 1), {
        axis: -1,
        epsilon: { float: epsilon },
        stash_type: 1,
      }),
    rope: (e, { heads, channels }) => {
      const [x = '', cos = '', sin = ''] = e.inputs
      const part = channels === undefined ? {} : { num_heads: heads, rotary_embedding_dim: channels }
      e.contrib('RotaryEmbedding', [x, positionsOf(cos), cos, sin], e.outputs, { interleaved: 0, ...part })
    },
    linear: (e, attributes) => {
      if (!attributes.transposed || e.maker(1)?.op === 'nBitWeight') return ops.linear.emit(e, attributes)
      if (e.inputTypes[0]?.shape.length !== 2)
        throw internalError('a product of more than rows with a weight as stored')
      e.node('Gemm', e.inputs, e.outputs, { transB: 1 })
    },
    matmul: (e, { transA, transB, alpha }) => {
      const [x = '', y = ''] = e.inputs
      const [left, right] = [transposed(e, 0, x, transA), transposed(e, 1, y, transB)]
      e.node('MatMul', [alpha === 1 ? left : scaled(e, left, alpha), right], e.outputs)
    },
  }
}

/** The last two axes exchanged, where that is wanted. */
function transposed(e: Emitter, input: number, name: string, wanted: boolean): string {
  if (!wanted) return name
  const rank = e.inputTypes[input]?.shape.length ?? 0
  const result = e.temporary()
  const axes = Array.from({ length: rank }, (_, axis) => axis)
  e.node('Transpose', [name], [result], { perm: [...axes.slice(0, -2), rank - 1, rank - 2] })
  return result
}

function scaled(e: Emitter, name: string, factor: number): string {
  const result = e.temporary()
  e.node('Mul', [name, e.float(factor)], [result])
  return result
}
