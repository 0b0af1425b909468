import { internalError } from '../../util/errors.ts'
import { broadcast, type Shape } from '../dims.ts'
import type { Emitter } from '../emitter.ts'
import type { Builder } from '../builder.ts'
import {
  lastDim,
  type FourBitAttributes,
  type NBitAttributes,
  type Node,
  type OpAttributes,
  type Value,
} from '../value.ts'
import { f32, need, pair, type OpDefinitions } from './definition.ts'
import { emitSliced } from './slices.ts'

function matmulShape(a: Shape, b: Shape, transA: boolean, transB: boolean): Shape | undefined {
  const [m, k] = transA ? [a.at(-1), a.at(-2)] : [a.at(-2), a.at(-1)]
  const [k2, n] = transB ? [b.at(-1), b.at(-2)] : [b.at(-2), b.at(-1)]
  const batch = broadcast(a.slice(0, -2), b.slice(0, -2))
  if (batch === undefined || m === undefined || n === undefined || k !== k2) return undefined
  return [...batch, m, n]
}

/** x weightT from the packed weight. The kernel ignores transB = 0 and is silently wrong then. */
function emitFourBit(
  e: Emitter,
  transposed: boolean,
  { quantType, blockSize, rows, columns }: FourBitAttributes,
  [codes = '', scales = '']: readonly string[],
): void {
  if (!transposed)
    throw internalError('a product with a packed weight that is not transposed: give the weight unpacked')
  e.contrib('MatMulBnb4', [e.inputs[0] ?? '', codes, scales], e.outputs, {
    K: columns,
    N: rows,
    block_size: blockSize,
    quant_type: quantType === 'fp4' ? 0 : 1,
    transB: 1,
  })
}

/** x weightT in integers of 8 bits: accuracy level 4, the only one whose kernels are fast. */
function emitNBits(
  e: Emitter,
  transposed: boolean,
  { bits, blockSize, rows, columns }: NBitAttributes,
  packed: readonly string[],
): void {
  if (!transposed) throw internalError('a product with a packed weight that is not transposed')
  const attributes = { K: columns, N: rows, bits, block_size: blockSize, accuracy_level: 4 }
  e.contrib('MatMulNBits', [e.inputs[0] ?? '', ...packed], e.outputs, attributes)
}

function emitLinear(e: Emitter, how: { readonly transposed: boolean; readonly unsigned: boolean }): void {
  const { transposed } = how
  const weight = e.maker(1)
  if (weight?.op === 'fourBitWeight') emitFourBit(e, transposed, weight.attributes, weight.inputs)
  else if (weight?.op === 'nBitWeight') emitNBits(e, transposed, weight.attributes, weight.inputs)
  else if (weight?.op === 'slicedWeight') emitSliced(e, how, weight.attributes, weight.inputs)
  else if (transposed) e.contrib('FusedMatMul', e.inputs, e.outputs, { transB: 1 })
  else e.node('MatMul', e.inputs, e.outputs)
}

/** Products of integers by the kernel that is exact on every processor: for those on which the fast one is not. */
export const unsignedProducts = {
  linear: (e: Emitter, attributes: OpAttributes['linear']): void => emitLinear(e, { ...attributes, unsigned: true }),
}

/** A weight for the gradient of its product: made of what is stored a second time, where something in it asks for that. */
function decodedAgain(b: Builder, weight: Value): Value {
  return asksForAgain(weight) ? madeAgain(b, weight) : weight
}

function asksForAgain({ node }: Value): boolean {
  if (node.op === 'decode') return (node as Node<'decode'>).attributes.again
  return (node.op === 'mul' || node.op === 'reshape' || node.op === 'sixBits') && node.inputs.some(asksForAgain)
}

function madeAgain(b: Builder, value: Value): Value {
  const { node } = value
  const [x = value, y = value] = node.inputs
  switch (node.op) {
    case 'decode': {
      const { format, again } = (node as Node<'decode'>).attributes
      return b.decode(x, format, { again })
    }
    case 'toFloat':
      return b.toFloat(x)
    case 'sixBits':
      return b.sixBits(x, madeAgain(b, y))
    case 'mul':
      return b.mul(madeAgain(b, x), madeAgain(b, y))
    case 'reshape':
      return b.reshape(madeAgain(b, x), value.type.shape)
    default:
      return value
  }
}

/** Matrix products. */
export const products = {
  /**
   * (x [..., k], weight) -> x weightT with weight [n, k] as checkpoints store it (`transposed`), or x weight with weight
   * [k, n]. The one op of every weight product, so that its lowering is chosen in one place.
   */
  linear: {
    memory: 'own',
    expensive: [0],
    infer: (inputs, { transposed }) => {
      const [x, w] = pair(inputs)
      const [n, k] = transposed ? pair(w.shape) : [w.shape[1], w.shape[0]]
      need(w.shape.length === 2 && lastDim(x) === k && n !== undefined, 'linear', inputs)
      return [f32([...x.shape.slice(0, -1), n ?? 0])]
    },
    vjp: (b, { inputs, attributes: { transposed } }, dy) => {
      const [x, w] = pair(inputs)
      const [dyRows, xRows] = [b.rows(dy), b.rows(x)]
      const dw = transposed ? b.matmul(dyRows, xRows, { transA: true }) : b.matmul(xRows, dyRows, { transA: true })
      return [b.linear(dy, decodedAgain(b, w), { transposed: !transposed }), dw]
    },
    emit: (e, attributes) => emitLinear(e, { ...attributes, unsigned: false }),
  },
  /** alpha a b, batched over the leading dimensions, either operand transposed in its last two. */
  matmul: {
    memory: 'own',
    infer: (inputs, { transA, transB }) => {
      const [a, b] = pair(inputs)
      const shape = matmulShape(a.shape, b.shape, transA, transB)
      need(shape !== undefined, 'matmul', inputs)
      return [f32(shape ?? [])]
    },
    vjp: (b, { inputs, attributes: { transA, transB, alpha } }, dy) => {
      const [x, y] = pair(inputs)
      const dx = transA
        ? b.matmul(y, dy, { transA: transB, transB: true, alpha })
        : b.matmul(dy, y, { transB: !transB, alpha })
      const dyy = transB
        ? b.matmul(dy, x, { transA: true, transB: transA, alpha })
        : b.matmul(x, dy, { transA: !transA, alpha })
      return [dx, dyy]
    },
    emit: (e, { transA, transB, alpha }) => {
      if (!transA && !transB && alpha === 1) e.node('MatMul', e.inputs, e.outputs)
      else
        e.contrib('FusedMatMul', e.inputs, e.outputs, {
          transA: Number(transA),
          transB: Number(transB),
          alpha: { float: alpha },
        })
    },
  },
} satisfies Partial<OpDefinitions>
