import { expect, test } from 'vitest'
import { b } from '../../graph/build.ts'
import { program } from '../../graph/program.ts'
import { productFlops, RuntimeProfile } from './profile.ts'
import { f32Tensor, Runtime } from './runtime.ts'

test.each([
  ['rows times a matrix', [5, 7], [5, 3], 2 * 5 * 7 * 3],
  ['its transpose', [7, 5], [5, 3], 2 * 5 * 7 * 3],
  ['a batch', [2, 4, 5, 7], [2, 4, 5, 3], 2 * 8 * 5 * 7 * 3],
  ['positions of rows times a matrix', [2, 5, 7], [2, 5, 3], 2 * 10 * 7 * 3],
] as const)('operations of %s', (_, a, result, flops) => {
  expect(productFlops(a, result)).toBe(flops)
})

test('runs from the start on are counted, node by node', async () => {
  const profile = await RuntimeProfile.create()
  const runtime = new Runtime({ threads: 1, profile })
  const x = b.input('x', { dtype: 'f32', shape: ['rows', 64] })
  const w = b.input('w', { dtype: 'f32', shape: [32, 64] })
  const y = b.softmax(b.linear(x, w))
  const inputs = Object.entries({ x, w }).map(([name, value]) => ({ name, value }))
  const tried = program({ name: 'tried', inputs, outputs: [{ name: 'y', value: y }] })
  const run = (rows: number): Promise<unknown> =>
    runtime.run(tried, {
      x: f32Tensor(new Float32Array(rows * 64), [rows, 64]),
      w: f32Tensor(new Float32Array(32 * 64), [32, 64]),
    })
  try {
    await run(3)
    profile.start()
    await run(10)
    await run(20)
    const [found, ...others] = await profile.read()
    expect(others).toEqual([])
    expect(found).toMatchObject({ name: 'tried', runs: 2 })
    expect(found!.insideSeconds).toBeGreaterThan(0)
    expect(found!.seconds).toBeGreaterThan(found!.insideSeconds)
    const ops = new Map(found!.ops.map((op) => [op.op, op]))
    expect(ops.get('FusedMatMul')).toMatchObject({ nodes: 2, flops: 2 * 30 * 64 * 32 })
    expect(ops.get('Softmax')).toMatchObject({ nodes: 2, flops: 0 })
  } finally {
    await runtime.close()
    await profile.close()
  }
})
