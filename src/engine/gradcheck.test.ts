import { afterAll, expect, test } from 'vitest'
import { b } from '../graph/build.ts'
import { dimValue, type Shape } from '../graph/dims.ts'
import { gradients } from '../graph/grad.ts'
import { ops } from '../graph/ops/index.ts'
import { program } from '../graph/program.ts'
import { only, type DType, type OpName, type Value } from '../graph/value.ts'
import { elements } from '../util/shape.ts'
import { floats, Runtime, type Feeds, type HostTensor } from './onnxruntime/runtime.ts'

const runtime = new Runtime({ threads: 1 })
afterAll(() => runtime.close())

const sizes = { batch: 2, seq: 5 }

interface Case {
  readonly op: OpName
  readonly name: string
  /** Float inputs: the gradient of each is checked. */
  readonly inputs: Readonly<Record<string, Shape>>
  readonly fixed?: Readonly<
    Record<string, { readonly dtype: DType; readonly shape: Shape; readonly values: readonly number[] }>
  >
  readonly build: (v: Readonly<Record<string, Value>>) => Value
}

const at = (v: Readonly<Record<string, Value>>, name: string): Value => {
  const value = v[name]
  if (value === undefined) throw new Error(`no ${name}`)
  return value
}
const elementwise = (op: 'add' | 'sub' | 'mul'): Case[] => [
  {
    op,
    name: 'same shape',
    inputs: { x: ['batch', 'seq', 3], y: ['batch', 'seq', 3] },
    build: (v) => b[op](at(v, 'x'), at(v, 'y')),
  },
  { op, name: 'row', inputs: { x: ['batch', 'seq', 3], y: [3] }, build: (v) => b[op](at(v, 'x'), at(v, 'y')) },
  {
    op,
    name: 'column',
    inputs: { x: ['batch', 'seq', 1], y: ['batch', 'seq', 3] },
    build: (v) => b[op](at(v, 'x'), at(v, 'y')),
  },
]
const unary = (op: 'exp' | 'sigmoid' | 'tanh' | 'silu' | 'softmax'): Case => ({
  op,
  name: '',
  inputs: { x: ['batch', 'seq', 4] },
  build: (v) => b[op](at(v, 'x')),
})
const matmuls = [false, true].flatMap((transA) =>
  [false, true].map((transB): Case => ({
    op: 'matmul',
    name: `transA ${transA} transB ${transB}`,
    inputs: { x: transA ? ['batch', 3, 'seq'] : ['batch', 'seq', 3], y: transB ? ['batch', 4, 3] : ['batch', 3, 4] },
    build: (v) => b.matmul(at(v, 'x'), at(v, 'y'), { transA, transB, alpha: 0.7 }),
  })),
)
const targets = { dtype: 'i64', shape: ['seq'], values: [1, 0, 3, 2, 1] } as const
const someRows = { dtype: 'i64', shape: [3], values: [1, 0, 7] } as const

const cases: Case[] = [
  ...elementwise('add'),
  ...elementwise('sub'),
  ...elementwise('mul'),
  ...(['exp', 'sigmoid', 'tanh', 'silu', 'softmax'] as const).map(unary),
  ...(['silu', 'gelu', 'gelu_tanh'] as const).map((activation): Case => ({
    op: 'gated',
    name: activation,
    inputs: { gate: ['batch', 'seq', 4], up: ['batch', 'seq', 4] },
    build: (v) => b.gated(at(v, 'gate'), at(v, 'up'), activation),
  })),
  ...matmuls,
  {
    op: 'matmul',
    name: 'one matrix for the batch',
    inputs: { x: ['batch', 'seq', 3], y: [3, 4] },
    build: (v) => b.matmul(at(v, 'x'), at(v, 'y')),
  },
  {
    op: 'rmsNorm',
    name: '',
    inputs: { x: ['batch', 'seq', 6], w: [6] },
    build: (v) => b.rmsNorm(at(v, 'x'), at(v, 'w'), 1e-5),
  },
  ...[8, 12].map((width): Case => ({
    op: 'rope',
    name: width === 8 ? '' : 'a part of each head',
    inputs: { x: ['batch', 'seq', width] },
    fixed: {
      cos: { dtype: 'f32', shape: ['batch', 'seq', 2], values: Array.from({ length: 20 }, (_, i) => Math.cos(i)) },
      sin: { dtype: 'f32', shape: ['batch', 'seq', 2], values: Array.from({ length: 20 }, (_, i) => Math.sin(i)) },
    },
    build: (v) => b.rope(at(v, 'x'), at(v, 'cos'), at(v, 'sin'), 2),
  })),
  {
    op: 'linear',
    name: 'weight [n, k]',
    inputs: { x: ['batch', 'seq', 3], w: [4, 3] },
    build: (v) => b.linear(at(v, 'x'), at(v, 'w')),
  },
  {
    op: 'linear',
    name: 'weight [k, n]',
    inputs: { x: ['batch', 'seq', 3], w: [3, 4] },
    build: (v) => b.linear(at(v, 'x'), at(v, 'w'), { transposed: false }),
  },
  {
    op: 'reshape',
    name: '',
    inputs: { x: ['batch', 'seq', 6] },
    build: (v) => b.reshape(at(v, 'x'), ['batch', 'seq', 2, 3]),
  },
  {
    op: 'repeat',
    name: '',
    inputs: { x: ['batch', 'seq', 3] },
    build: (v) => b.repeat(at(v, 'x'), { axis: 1, times: 3 }),
  },
  {
    op: 'transpose',
    name: '',
    inputs: { x: ['batch', 'seq', 2, 3] },
    build: (v) => b.transpose(at(v, 'x'), [0, 3, 1, 2]),
  },
  {
    op: 'split',
    name: 'all parts',
    inputs: { x: ['batch', 'seq', 3] },
    fixed: { sizes: { dtype: 'i64', shape: [3], values: [2, 2, 1] } },
    build: (v) => {
      const parts = b.split(at(v, 'x'), at(v, 'sizes'), { axis: 1, parts: [2, 2, 1] })
      const changed = parts.map((part, i) => (i === 1 ? b.mul(part, part) : b.scale(part, 2 - i)))
      return b.concat(changed, at(v, 'sizes'), { axis: 1, whole: 'seq' })
    },
  },
  {
    op: 'split',
    name: 'the first part only',
    inputs: { x: ['batch', 'seq', 3] },
    fixed: { sizes: { dtype: 'i64', shape: [2], values: [3, 2] } },
    build: (v) => only(b.split(at(v, 'x'), at(v, 'sizes'), { axis: 1, parts: [3, 2] })),
  },
  {
    op: 'concat',
    name: '',
    inputs: { x: ['batch', 3, 3], y: ['batch', 2, 3] },
    fixed: { sizes: { dtype: 'i64', shape: [2], values: [3, 2] } },
    build: (v) => b.concat([at(v, 'x'), at(v, 'y')], at(v, 'sizes'), { axis: 1, whole: 'seq' }),
  },
  { op: 'reduceSum', name: '', inputs: { x: ['batch', 'seq', 3] }, build: (v) => b.reduceSum(at(v, 'x'), [1]) },
  {
    op: 'expandLike',
    name: '',
    inputs: { x: ['seq', 1] },
    fixed: { like: { dtype: 'f32', shape: ['batch', 'seq', 3], values: new Array<number>(30).fill(0) } },
    build: (v) => b.expandLike(at(v, 'x'), at(v, 'like')),
  },
  {
    op: 'crossEntropy',
    name: '',
    inputs: { x: ['seq', 4] },
    fixed: { targets },
    build: (v) => b.crossEntropy(at(v, 'x'), at(v, 'targets'))[0],
  },
  {
    op: 'crossEntropy',
    name: 'with smoothing',
    inputs: { x: ['seq', 4] },
    fixed: { targets },
    build: (v) => b.crossEntropy(at(v, 'x'), at(v, 'targets'), { smoothing: 0.3 })[0],
  },
  {
    op: 'addAt',
    name: '',
    inputs: { x: ['seq', 4] },
    fixed: { targets },
    build: (v) => b.addAt(at(v, 'x'), at(v, 'targets'), 0.5),
  },
  {
    op: 'takeRows',
    name: '',
    inputs: { x: ['batch', 'seq', 4] },
    fixed: { rows: someRows },
    build: (v) => b.takeRows(at(v, 'x'), at(v, 'rows')),
  },
  {
    op: 'putRows',
    name: '',
    inputs: { y: [3, 4], like: ['batch', 'seq', 4] },
    fixed: { rows: someRows },
    build: (v) => b.add(b.putRows(at(v, 'y'), at(v, 'rows'), at(v, 'like')), at(v, 'like')),
  },
]

const wholes = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

/** Ops without inputs, or without a gradient: their results alone are checked. */
const withoutGradient: Case[] = [
  { op: 'input', name: '', inputs: { x: ['batch', 3] }, build: (v) => at(v, 'x') },
  { op: 'constant', name: '', inputs: {}, build: () => b.constant(2) },
  { op: 'integers', name: '', inputs: {}, build: () => b.integers([3, 1, 2]) },
  { op: 'argmax', name: '', inputs: { x: ['batch', 'seq', 4] }, build: (v) => b.argmax(at(v, 'x')) },
  ...(['bf16', 'f16'] as const).map((format): Case => ({
    op: 'decode',
    name: format,
    inputs: {},
    fixed: { bits: { dtype: 'u16', shape: ['batch', 3], values: wholes(6) } },
    build: (v) => b.decode(at(v, 'bits'), format),
  })),
  ...(['u8', 'i8'] as const).map((dtype): Case => ({
    op: 'toFloat',
    name: dtype,
    inputs: {},
    fixed: { codes: { dtype, shape: ['batch', 3], values: wholes(6) } },
    build: (v) => b.toFloat(at(v, 'codes')),
  })),
  {
    op: 'sixBits',
    name: '',
    inputs: {},
    fixed: {
      codes: { dtype: 'u8', shape: ['batch', 24], values: wholes(48) },
      scales: { dtype: 'f32', shape: ['batch', 2], values: wholes(4) },
    },
    build: (v) => b.sixBits(at(v, 'codes'), at(v, 'scales')),
  },
  {
    op: 'fourBitWeight',
    name: 'in a product',
    inputs: { x: ['batch', 'seq', 32] },
    fixed: {
      codes: { dtype: 'u8', shape: [64], values: wholes(64) },
      scales: { dtype: 'f32', shape: [4], values: wholes(4) },
    },
    build: (v) => {
      const format = { quantType: 'nf4', blockSize: 32, rows: 4, columns: 32 } as const
      return b.linear(at(v, 'x'), b.fourBitWeight(at(v, 'codes'), at(v, 'scales'), format))
    },
  },
  ...([1, 2] as const).flatMap((orders) =>
    [true, false].map((low): Case => {
      const order = (height: number, width: number): [name: string, height: number, width: number][] => [
        ['high', height, width],
        ...(low ? ([['both', 2 * height, width]] as [string, number, number][]) : []),
      ]
      const shapes = [
        ...order(64, 4),
        ...(orders === 2 ? order(4, 64).map(([name, ...shape]) => [`backward ${name}`, ...shape] as const) : []),
      ]
      return {
        op: 'slicedWeight',
        name: `in ${orders} orders${low ? ', with low' : ''}, in a product`,
        inputs: { x: ['batch', 'seq', 64] },
        fixed: {
          scales: { dtype: 'f32', shape: [4], values: wholes(4) },
          ...Object.fromEntries(
            shapes.map(([name, ...shape]) => [name, { dtype: 'i8', shape, values: wholes(shape[0]! * shape[1]!) }]),
          ),
        },
        build: (v) => {
          const slices = shapes.map(([name]) => at(v, name))
          return b.linear(at(v, 'x'), b.slicedWeight(at(v, 'scales'), slices, { rows: 4, columns: 64, low, orders }))
        },
      }
    }),
  ),
  ...([8, 4] as const).map((bits): Case => ({
    op: 'nBitWeight',
    name: `of ${bits} bits in a product`,
    inputs: { x: ['batch', 'seq', 64] },
    fixed: {
      codes: { dtype: 'u8', shape: [4, 2, 4 * bits], values: wholes(32 * bits) },
      scales: { dtype: 'f32', shape: [4, 2], values: wholes(8) },
    },
    build: (v) => {
      const format = { bits, blockSize: 32, rows: 4, columns: 64 } as const
      return b.linear(at(v, 'x'), b.nBitWeight(at(v, 'codes'), at(v, 'scales'), format))
    },
  })),
]

test('every op is among the cases, with its gradient unless it has none', () => {
  const checked = new Set(cases.map(({ op }) => op))
  expect([...new Set([...checked, ...withoutGradient.map(({ op }) => op)])].sort()).toEqual(Object.keys(ops).sort())
  const discrete = (Object.keys(ops) as OpName[]).filter((op) => ops[op].vjp === 'discrete')
  expect(discrete.filter((op) => checked.has(op))).toEqual([])
  const sources = withoutGradient.map(({ op }) => op).filter((op) => !discrete.includes(op))
  expect(sources).toEqual(['input', 'constant', 'integers'])
})

const numbers = (shape: Shape): number[] => shape.map((dim) => dimValue(dim, sizes))
let seed = 1
const random = (): number => {
  seed = (seed * 48271) % 2147483647
  return (seed / 2147483647) * 2 - 1
}
const randomTensor = (shape: Shape): HostTensor => {
  const dims = numbers(shape)
  const data = Float32Array.from({ length: elements(dims) }, random)
  return { dtype: 'f32', shape: dims, data }
}
const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0)
const moved = (x: HostTensor, direction: Float32Array, step: number): HostTensor => ({
  ...x,
  data: floats(x).map((value, i) => value + step * (direction[i] ?? 0)),
})

const arrays = { f32: Float32Array, u16: Uint16Array, u8: Uint8Array, i8: Int8Array }

function inputsOf({ inputs, fixed = {} }: Case): { values: Record<string, Value>; feeds: Record<string, HostTensor> } {
  const values: Record<string, Value> = {}
  const feeds: Record<string, HostTensor> = {}
  for (const [name, shape] of Object.entries(inputs)) {
    values[name] = b.input(name, { dtype: 'f32', shape })
    feeds[name] = randomTensor(shape)
  }
  for (const [name, { dtype, shape, values: data }] of Object.entries(fixed)) {
    values[name] = b.input(name, { dtype, shape })
    feeds[name] = {
      dtype,
      shape: numbers(shape),
      data: dtype === 'i64' ? BigInt64Array.from(data, BigInt) : arrays[dtype].from(data),
    } as HostTensor
  }
  return { values, feeds }
}

test.each([...cases, ...withoutGradient])('$op $name: its results have the types that were inferred', async (item) => {
  const { values, feeds } = inputsOf(item)
  const { outputs: results } = item.build(values).node
  const found = await runtime.run(
    program({
      name: 'forward',
      inputs: Object.entries(values).map(([name, value]) => ({ name, value })),
      outputs: results.map((value, i) => ({ name: `out ${i}`, value })),
    }),
    feeds,
  )
  results.forEach(({ type: { dtype, shape } }, i) => {
    expect(found[`out ${i}`]).toMatchObject({ dtype, shape: numbers(shape) })
  })
})

/** Checks the gradient along three random directions per input against central differences in f32. */
test.each(cases)('gradient of $op $name', async (item) => {
  const { inputs, build } = item
  const { values, feeds } = inputsOf(item)
  const y = build(values)
  const dy = b.input('dy', y.type)
  const names = Object.keys(inputs)
  const grads = gradients(
    [{ value: y, cotangent: dy }],
    names.map((name) => at(values, name)),
  )
  const ports = [...Object.entries(values).map(([name, value]) => ({ name, value })), { name: 'dy', value: dy }]
  const forward = program({ name: 'forward', inputs: ports, outputs: [{ name: 'out', value: y }] })
  const backward = program({
    name: 'backward',
    inputs: ports,
    outputs: names.map((name, i) => {
      const value = grads[i]
      if (value === undefined) throw new Error(`no gradient of ${name}`)
      return { name: `d ${name}`, value }
    }),
  })
  const cotangent = randomTensor(y.type.shape)
  const objective = async (changed: Feeds): Promise<number> => {
    const results = await runtime.run(forward, { ...feeds, ...changed })
    return dot(floats(results['out']), floats(cotangent))
  }
  const results = await runtime.run(backward, { ...feeds, dy: cotangent })
  for (const name of names) {
    const x = feeds[name]
    if (x === undefined) throw new Error('no feed')
    for (let trial = 0; trial < 3; trial++) {
      const direction = floats(randomTensor(x.shape))
      const step = 1e-2
      const up = await objective({ [name]: moved(x, direction, step) })
      const down = await objective({ [name]: moved(x, direction, -step) })
      const expected = (up - down) / (2 * step)
      const found = dot(floats(results[`d ${name}`]), direction)
      expect(Math.abs(found - expected)).toBeLessThan(1e-3 * Math.max(1, Math.abs(expected)))
    }
  }
})
