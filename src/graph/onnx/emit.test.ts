import { fromBinary } from '@bufbuild/protobuf'
import { afterAll, expect, test } from 'vitest'
import { f32Tensor, floats, Runtime } from '../../engine/onnxruntime/runtime.ts'
import { b } from '../build.ts'
import { program, type Port, type Program } from '../program.ts'
import type { Value } from '../value.ts'
import { toOnnx } from './emit.ts'
import { ModelProtoSchema, type ModelProto } from './onnx_pb.ts'

const runtime = new Runtime({ threads: 1 })
afterAll(() => runtime.close())

const x = b.input('x', { dtype: 'f32', shape: ['rows', 2] })
const port = (name: string, value: Value): Port => ({ name, value })
const emitted = (target: Program): ModelProto => fromBinary(ModelProtoSchema, toOnnx(target))
const feed = f32Tensor(Float32Array.of(1, 2, 3, 4), [2, 2])

test('inputs and outputs keep their names, types and symbolic dimensions', () => {
  const bits = b.input('bits', { dtype: 'u16', shape: [2] })
  const y = b.mul(x, b.decode(bits, 'bf16'))
  const model = emitted(program({ name: 'p', inputs: [port('x', x), port('bits', bits)], outputs: [port('y', y)] }))
  const info = (values: NonNullable<ModelProto['graph']>['input']): unknown[] =>
    values.map(({ name, type }) => {
      const tensor = type?.value.case === 'tensorType' ? type.value.value : undefined
      return [name, tensor?.elemType, tensor?.shape?.dim.map(({ value }) => value.value)]
    })
  // Element types of the ONNX specification: 1 is float, 4 is uint16.
  expect(info(model.graph!.input)).toEqual([
    ['x', 1, ['rows', 2n]],
    ['bits', 4, [2n]],
  ])
  expect(info(model.graph!.output)).toEqual([['y', 1, ['rows', 2n]]])
  expect(model.graph!.node.map(({ opType }) => opType)).toEqual(['BitCast', 'Cast', 'Mul'])
  expect(model.opsetImport.map(({ domain, version }) => [domain, version])).toEqual([
    ['', 26n],
    ['com.microsoft', 1n],
  ])
})

test('equal constants are stored once', () => {
  const y = b.add(b.scale(x, 3), b.scale(b.exp(x), 3))
  const model = emitted(program({ name: 'p', inputs: [port('x', x)], outputs: [port('y', y)] }))
  expect(model.graph!.initializer.map(({ floatData }) => floatData)).toEqual([[3]])
})

test('an output under two names, and an input that is an output too, are all there', async () => {
  const y = b.scale(x, 2)
  const target = program({
    name: 'p',
    inputs: [port('x', x)],
    outputs: [port('first', y), port('second', y), port('same', x)],
  })
  const results = await runtime.run(target, { x: feed })
  expect([...floats(results['first'])]).toEqual([2, 4, 6, 8])
  expect([...floats(results['second'])]).toEqual([2, 4, 6, 8])
  expect([...floats(results['same'])]).toEqual([1, 2, 3, 4])
})

test('a value that is given counts, though its operation runs for another result', async () => {
  const weight = b.input('weight', { dtype: 'f32', shape: [2] })
  const y = b.rmsNorm(x, weight, 0)
  const r = y.node.outputs[1]!
  const target = program({
    name: 'p',
    inputs: [port('x', x), port('weight', weight), port('r', r)],
    outputs: [port('y', y), port('z', b.mul(y, r))],
  })
  const { y: normed, z } = await runtime.run(target, {
    x: feed,
    weight: f32Tensor(Float32Array.of(1, 1), [2]),
    r: f32Tensor(Float32Array.of(10, 100), [2, 1]),
  })
  const expected = [1, 2].map((value) => value / Math.sqrt(2.5))
  expect(floats(normed)[0]).toBeCloseTo(expected[0]!, 6)
  // The norm was computed again; z was made with the r that was given.
  expect(floats(z)[0]).toBeCloseTo(10 * expected[0]!, 5)
  expect(floats(z)[3]).toBeCloseTo((100 * 4) / Math.sqrt(12.5), 4)
})

test.each(['silu', 'gelu', 'gelu_tanh'] as const)(
  '%s by one node gives what it gives by its share',
  async (activation) => {
    const up = b.input('up', { dtype: 'f32', shape: ['rows', 2] })
    const y = b.gated(x, up, activation)
    const given = (results: readonly Port[]): Program =>
      program({ name: 'p', inputs: [port('x', x), port('up', up)], outputs: results })
    const [alone, apart] = [given([port('y', y)]), given([port('y', y), port('activated', y.node.outputs[1]!)])]
    expect(emitted(alone).graph!.node).toHaveLength(2)
    expect(emitted(apart).graph!.node.length).toBeGreaterThan(2)
    const gates = f32Tensor(Float32Array.of(-3, -0.5, 0, 2.5), [2, 2])
    const [short, long] = [
      await runtime.run(alone, { x: gates, up: feed }),
      await runtime.run(apart, { x: gates, up: feed }),
    ]
    // Of 2.5: x s(x), the normal distribution, and its approximation, in f64.
    const expected = { silu: 2.3103546, gelu: 2.4844758, gelu_tanh: 2.4849157 }[activation]
    expect(floats(long['activated'])[3]).toBeCloseTo(expected, 6)
    for (const [i, value] of floats(short['y']).entries()) expect(floats(long['y'])[i]).toBeCloseTo(value, 6)
  },
)
