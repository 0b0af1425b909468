import { describe, expect, test } from 'vitest'
import { b } from './build.ts'
import { gradients } from './grad.ts'
import { print, program, verify, type Program } from './program.ts'
import type { Node, TensorType, Value } from './value.ts'

const f32 = (...shape: (number | string)[]): TensorType => ({ dtype: 'f32', shape })
const x = b.input('x', f32('batch', 4))
const w = b.input('w', f32(3, 4))
const dy = b.input('dy', f32('batch', 3))
const h = b.linear(x, w)
const y = b.silu(h)
const inputs = [
  { name: 'x', value: x },
  { name: 'w', value: w },
]

describe('print', () => {
  test('writes a line an operation, in the order in which they run', () => {
    const forward = program({ name: 'forward', inputs, outputs: [{ name: 'y', value: y }] })
    expect(print(forward)).toBe(`program forward
  in  x: f32[batch, 4]
  in  w: f32[3, 4]
  %0: f32[batch, 3] = linear(x, w) transposed=true
  %1: f32[batch, 3] = silu(%0)
  out y = %1
`)
  })

  test('writes gradients in terms of the same operations', () => {
    const [dw] = gradients([{ value: y, cotangent: dy }], [w])
    const ports = [...inputs, { name: 'h', value: h }, { name: 'dy', value: dy }]
    const backward = program({ name: 'backward', inputs: ports, outputs: [{ name: 'dw', value: dw! }] })
    // w is not read: neither it nor the product is computed again.
    expect(print(backward)).toBe(`program backward
  in  x: f32[batch, 4]
  in  h: f32[batch, 3]
  in  dy: f32[batch, 3]
  %0: f32[batch, 3] = silu(h)
  %1: f32[batch, 3] = sigmoid(h)
  %2: f32[] = constant() value=1
  %3: f32[batch, 3] = sub(%2, %0)
  %4: f32[batch, 3] = mul(%1, %3)
  %5: f32[batch, 3] = add(%0, %4)
  %6: f32[batch, 3] = mul(dy, %5)
  %7: f32[3, 4] = matmul(%6, x) transA=true transB=false alpha=1
  out dw = %7
`)
  })

  test('is the same for the same computation, and another for another', () => {
    const written = (scale: number): string => {
      const input = b.input('x', f32('batch', 4))
      const value = b.scale(input, scale)
      return print(program({ name: 'p', inputs: [{ name: 'x', value: input }], outputs: [{ name: 'y', value }] }))
    }
    expect(written(2)).toBe(written(2))
    expect(written(2)).not.toBe(written(3))
  })
})

describe('verify', () => {
  const good = program({ name: 'p', inputs, outputs: [{ name: 'y', value: y }] })
  const broken = (changes: Partial<Program>) => (): void => verify({ ...good, ...changes })
  const [linear, silu] = good.nodes as [Node, Node]

  test('accepts what program makes', () => {
    expect(good.nodes.map((node) => node.op)).toEqual(['linear', 'silu'])
    expect(broken({})).not.toThrow()
  })

  test('refuses a program that breaks a rule', () => {
    const twice = [...inputs, { name: 'x', value: dy }]
    expect(broken({ inputs: twice })).toThrow('internal: program p: a name given twice among x, w, x, y')
    expect(broken({ outputs: [{ name: 'w', value: y }] })).toThrow('a name given twice among x, w, w')
    expect(broken({ nodes: [silu, linear] })).toThrow('silu reads a value before it is made')
    expect(broken({ nodes: [linear] })).toThrow('the output "y" is never made')
    expect(broken({ nodes: [linear, linear, silu] })).toThrow('linear is assigned twice')
    expect(broken({ inputs: inputs.slice(0, 1), nodes: [w.node, linear, silu] })).toThrow(
      'the input "w" is not among its inputs',
    )
  })

  test('refuses a type that the operation does not give', () => {
    const outputs: Value[] = []
    const node: Node = { op: 'silu', attributes: {}, inputs: [h], outputs }
    outputs.push({ node, index: 0, type: f32('batch', 5) })
    const lie = { nodes: [linear, node], outputs: [{ name: 'y', value: outputs[0]! }] }
    expect(broken(lie)).toThrow('silu is said to give f32[batch, 5]')
  })

  test('runs over every program that is made', () => {
    const make = (): Program => program({ name: 'p', inputs: inputs.slice(1), outputs: [{ name: 'y', value: y }] })
    expect(make).toThrow('internal: program p: the input "x" is not among its inputs')
  })
})

test('inputs that nothing reads are left out', () => {
  const { inputs: used } = program({
    name: 'p',
    inputs: [...inputs, { name: 'dy', value: dy }],
    outputs: [{ name: 'y', value: y }],
  })
  expect(used.map(({ name }) => name)).toEqual(['x', 'w'])
})

test('a program may start anywhere: a value that is given is not computed', () => {
  const cut = program({ name: 'p', inputs: [{ name: 'h', value: h }], outputs: [{ name: 'y', value: y }] })
  expect(cut.nodes.map((node) => node.op)).toEqual(['silu'])
})
