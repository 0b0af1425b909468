import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { uniform } from './uniform.ts'
import { openSafetensors } from '../../src/formats/safetensors.ts'
import { bytesToF32 } from '../../src/util/dtype.ts'
import type { Trainable } from '../../src/engine/trainable.ts'
import type { OptimizerConfig } from '../../src/train/config.ts'
import { makeOptimizer, stateBytes } from '../../src/train/optimizer.ts'
import { elements } from '../../src/util/shape.ts'

/** Made by `make_optimizer_golden.py` with PyTorch and bitsandbytes, from the same formulas as here. */
const folder = fileURLToPath(new URL('optimizer/', import.meta.url))

interface Golden {
  readonly steps: number
  readonly betas: readonly [number, number]
  readonly eps: number
  readonly weight_decay: number
  readonly shapes: Readonly<Record<string, readonly number[]>>
  readonly digests: Readonly<Record<string, Readonly<Record<string, string>>>>
  readonly sgd: Readonly<Record<string, Readonly<Record<string, number | boolean>>>>
  readonly sgd_stride: number
}

const golden = JSON.parse(await readFile(`${folder}golden.json`, 'utf8')) as Golden
const reader = await openSafetensors(`${folder}golden.safetensors`)
afterAll(() => reader.close())

function gradient(i: number, index: number, step: number): number {
  const block = Math.floor(i / 256)
  if ((block % 7 === 3 && step < 3) || i % 31 === 11) return 0
  const g = uniform(i, 100 * index + step)
  return block % 7 === 5 ? g * 2 ** -(i % 24) : g
}

function makeTrainables(): Trainable[] {
  return Object.entries(golden.shapes).map(([name, shape], index) => {
    const count = elements(shape)
    const data = Float32Array.from({ length: count }, (_, i) => uniform(i, 1000 + index))
    return { name, shape, data, gradient: new Float32Array(count) }
  })
}

function options(optim: 'adamw' | 'adamw-8bit' | 'sgd', optimArgs?: OptimizerConfig['optimArgs']): OptimizerConfig {
  const { betas, eps, weight_decay: weightDecay } = golden
  return { optim, optimArgs, adamBeta1: betas[0], adamBeta2: betas[1], adamEpsilon: eps, weightDecay }
}

function setGradients(trainables: readonly Trainable[], step: number, factor: number): void {
  trainables.forEach(({ gradient: g }, index) => {
    for (let i = 0; i < g.length; i++) g[i] = factor * gradient(i, index, step)
  })
}

function digest(tensor: Uint8Array | Float32Array | undefined): string {
  if (tensor === undefined) throw new Error('no such state')
  return createHash('sha256')
    .update(new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength))
    .digest('hex')
}

test.each(['adamw', 'adamw-8bit'] as const)('20 updates of %s', async (optim) => {
  const trainables = makeTrainables()
  const optimizer = makeOptimizer(trainables, options(optim))
  let checked = 0
  for (let step = 1; step <= golden.steps; step++) {
    // Four micro-batches' worth: the scale makes it the mean again.
    setGradients(trainables, step, 4)
    optimizer.step(0.01 / step, 1 / 4)
    if (optim === 'adamw') continue
    for (const [name, expected] of Object.entries(golden.digests)) {
      if (expected[step] === undefined) continue
      expect(digest(optimizer.state.get(name)), `${name}, step ${step}`).toBe(expected[step])
      checked++
    }
  }
  // Three tensors have four parts in 8 bits, at four steps; of the others, two parts in f32.
  if (optim === 'adamw-8bit') expect(checked).toBe(48)
  expect([...optimizer.state.values()].filter((tensor) => tensor instanceof Uint8Array)).toHaveLength(
    optim === 'adamw' ? 0 : 6,
  )
  let worst = 0
  for (const { name, data, gradient: left } of trainables) {
    const expected = bytesToF32(await reader.read(`${optim}.${name}`), 'F32')
    expect(data.length).toBe(expected.length)
    data.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - (expected[i] ?? NaN)))))
    expect(left.every((value) => value === 0)).toBe(true)
  }
  console.info(`${optim}: largest difference of a weight ${worst.toExponential(1)}`)
  expect(worst).toBeLessThan(1e-6)
})

test('every variant of SGD is among the cases', () => expect(Object.keys(golden.sgd)).toHaveLength(4))

test.each(Object.entries(golden.sgd))('20 updates of %s', async (variant, optimArgs) => {
  const trainables = makeTrainables()
  const optimizer = makeOptimizer(trainables, options('sgd', optimArgs))
  for (let step = 1; step <= golden.steps; step++) {
    setGradients(trainables, step, 4)
    optimizer.step(0.01 / step, 1 / 4)
  }
  let worst = 0
  for (const { name, data, gradient: left } of trainables) {
    const expected = bytesToF32(await reader.read(`${variant}.${name}`), 'F32')
    expect(expected).toHaveLength(Math.ceil(data.length / golden.sgd_stride))
    expected.forEach((value, i) => (worst = Math.max(worst, Math.abs(value - (data[i * golden.sgd_stride] ?? NaN)))))
    expect(left.every((value) => value === 0)).toBe(true)
  }
  console.info(`${variant}: largest difference of a weight ${worst.toExponential(1)}`)
  expect(worst).toBeLessThan(1e-6)
})

const every = [
  ['adamw', options('adamw')],
  ['adamw-8bit', options('adamw-8bit')],
  ['sgd', options('sgd')],
  ['sgd with momentum', options('sgd', { momentum: 0.9, dampening: 0.3 })],
  ['LoRA+', { ...options('adamw'), loraplusLrRatio: 16 }],
] as const

test.each(every)('%s: the memory of its state is what is planned', (_, config) => {
  const trainables = makeTrainables()
  const { state } = makeOptimizer(trainables, config)
  const taken = [...state.values()].reduce((total, { byteLength }) => total + byteLength, 0)
  expect(taken).toBe(trainables.reduce((total, { name, data }) => total + stateBytes(name, data.length, config), 0))
})

test('LoRA+ changes nothing where every weight is trained', () => {
  const train = (changes: Partial<OptimizerConfig>): readonly Trainable[] => {
    const trainables = makeTrainables()
    const optimizer = makeOptimizer(trainables, { ...options('adamw'), ...changes })
    setGradients(trainables, 1, 1)
    optimizer.step(0.01, 1)
    return trainables
  }
  const plain = train({})
  expect(train({ loraplusLrRatio: 16, method: 'full' })).toEqual(plain)
  expect(train({ loraplusLrRatio: 16, method: 'lora' })).not.toEqual(plain)
})

test.each(every)('%s goes on from a saved state', (_, config) => {
  const run = (trainables: readonly Trainable[], optimizer: ReturnType<typeof makeOptimizer>, from: number): void => {
    for (let step = from; step < from + 3; step++) {
      setGradients(trainables, step, 1)
      optimizer.step(0.01, 1)
    }
  }
  const trainables = makeTrainables()
  const optimizer = makeOptimizer(trainables, config)
  run(trainables, optimizer, 1)

  const others = trainables.map((trainable) => ({ ...trainable, data: trainable.data.slice() }))
  const resumed = makeOptimizer(others, config)
  for (const [name, tensor] of optimizer.state) resumed.state.get(name)?.set(tensor)
  resumed.steps = optimizer.steps
  run(trainables, optimizer, 4)
  run(others, resumed, 4)
  expect(others.map(({ data }) => data)).toEqual(trainables.map(({ data }) => data))
})

test('a gradient whose square is infinite leaves no infinity behind', () => {
  const [trainable] = makeTrainables()
  if (trainable === undefined) throw new Error('no tensor')
  const optimizer = makeOptimizer([trainable], options('adamw-8bit'))
  trainable.gradient.fill(-3e38)
  optimizer.step(0.01, 1)
  expect(trainable.data.every(Number.isFinite)).toBe(true)
  for (const tensor of optimizer.state.values()) expect(tensor.every(Number.isFinite)).toBe(true)
})
