import { expect, test } from 'vitest'
import { b } from './build.ts'
import { productFlops } from './flops.ts'
import { gradients } from './grad.ts'
import { program } from './program.ts'

test('two operations for each multiplication and addition of the products, forward and back', () => {
  const x = b.input('x', { dtype: 'f32', shape: ['batch', 'seq', 3] })
  const w = b.input('w', { dtype: 'f32', shape: [5, 3] })
  const y = b.linear(x, w)
  const scores = b.matmul(y, y, { transB: true })
  const dy = b.input('dy', scores.type)
  const [dx, dw] = gradients([{ value: scores, cotangent: dy }], [x, w])
  const inputs = [
    { name: 'x', value: x },
    { name: 'w', value: w },
  ]
  const sizes = { batch: 2, seq: 7 }
  const [linear, attention] = [2 * (2 * 7) * 5 * 3, 2 * 2 * 7 * 7 * 5]
  const forward = program({ name: 'forward', inputs, outputs: [{ name: 'scores', value: scores }] })
  expect(productFlops(forward, sizes)).toBe(linear + attention)
  const given = [...inputs, { name: 'y', value: y }, { name: 'dy', value: dy }]
  const outputs = [
    { name: 'dx', value: dx! },
    { name: 'dw', value: dw! },
  ]
  const backward = program({ name: 'backward', inputs: given, outputs })
  expect(productFlops(backward, sizes)).toBe(2 * linear + 2 * attention)
})
