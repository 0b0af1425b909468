import { afterAll, expect, test } from 'vitest'
import { b } from '../../graph/build.ts'
import { program } from '../../graph/program.ts'
import { StackMemory } from '../memory.ts'
import { f32Tensor, floats, Runtime } from './runtime.ts'

const runtime = new Runtime({ threads: 1 })
afterAll(() => runtime.close())

const x = b.input('x', { dtype: 'f32', shape: ['rows', 4] })
const ports = (values: Readonly<Record<string, ReturnType<typeof b.exp>>>) =>
  Object.entries(values).map(([name, value]) => ({ name, value }))
const target = program({
  name: 'p',
  inputs: ports({ x }),
  outputs: ports({ y: b.scale(x, 2), largest: b.argmax(x) }),
})
const feeds = { x: f32Tensor(Float32Array.of(1, 2, 4, 3, 9, 5, 6, 7), [2, 4]) }

test('results lie in the memory that is given, and nowhere else', async () => {
  const memory = new StackMemory()
  const { buffer } = memory.floats(1)
  memory.clear()
  const results = await runtime.run(target, feeds, memory)
  expect(floats(results['y']).buffer).toBe(buffer)
  expect(floats(results['y'])).toEqual(Float32Array.of(2, 4, 8, 6, 18, 10, 12, 14))
  expect(results['largest']).toMatchObject({ dtype: 'i64', shape: [2], data: BigInt64Array.of(2n, 0n) })
})

test('a result is not copied by the way', async () => {
  const doubled = program({ name: 'doubled', inputs: ports({ x }), outputs: ports({ y: b.scale(x, 2) }) })
  const count = 2 ** 24
  const large = f32Tensor(new Float32Array(count).fill(1), [count / 4, 4])
  const memory = new StackMemory()
  memory.floats(count)
  memory.clear()
  const before = process.memoryUsage().arrayBuffers
  const results = await runtime.run(doubled, { x: large }, memory)
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(count)
  expect(floats(results['y']).at(-1)).toBe(2)
})

test('without memory they are in new memory', async () => {
  const [one, other] = [await runtime.run(target, feeds), await runtime.run(target, feeds)]
  expect(floats(one['y'])).toEqual(floats(other['y']))
  expect(floats(one['y']).buffer).not.toBe(floats(other['y']).buffer)
})

test('an error of a run is one, with memory too', async () => {
  const rows = b.input('rows', { dtype: 'i64', shape: ['wanted'] })
  const taken = program({ name: 'taken', inputs: ports({ x, rows }), outputs: ports({ y: b.takeRows(x, rows) }) })
  const beyond = { dtype: 'i64', shape: [1], data: BigInt64Array.of(7n) } as const
  await expect(runtime.run(taken, { ...feeds, rows: beyond }, new StackMemory())).rejects.toThrow('internal: taken')
})
