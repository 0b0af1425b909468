import { describe, expect, test } from 'vitest'
import type { Trainable } from '../engine/trainable.ts'
import { AdamW, clipFactor, gradientNorm, isDecayed } from './optimizer.ts'

function trainable(values: readonly number[], name = 'w'): Trainable {
  return { name, shape: [values.length], data: Float32Array.from(values), gradient: new Float32Array(values.length) }
}

const options = { beta1: 0.9, beta2: 0.95, epsilon: 1e-3, weightDecay: 0.1, decays: isDecayed }

/** Gradients and learning rate of three steps. */
const steps = [
  [[1, -0.01, 0], 0.1],
  [[0.5, 0.3, -2], 0.1],
  [[-1, 0.002, 0.25], 0.05],
] as const

// From torch 2.13.0, the parameter after each of those steps:
//   p = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
//   o = torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.95), eps=1e-3, weight_decay=decay)
//   for g, lr in steps: o.param_groups[0]['lr'] = lr; p.grad = torch.tensor(g); o.step(); print(p.tolist())
const decayed = [
  [0.395099937915802, -0.8990909457206726, 1.9800000190734863],
  [0.29733923077583313, -0.9610236287117004, 2.033644676208496],
  [0.29032057523727417, -0.9841652512550354, 2.0480313301086426],
]
const notDecayed = [
  [0.4000999331474304, -0.9090909361839294, 2.0],
  [0.3062902092933655, -0.9800145030021667, 2.0734446048736572],
  [0.3007582426071167, -1.0079612731933594, 2.0979996],
]

describe('AdamW', () => {
  test.each([
    ['model.layers.0.mlp.up_proj.lora_A.weight', decayed],
    ['model.layers.0.mlp.up_proj.bias', notDecayed],
    ['model.norm.weight', notDecayed],
    ['model.layers.0.input_layernorm.weight', notDecayed],
  ])('steps %s as PyTorch does', (name, golden) => {
    const parameter = trainable([0.5, -1, 2], name)
    const optimizer = new AdamW([parameter], options)
    steps.forEach(([gradient, learningRate], step) => {
      // The gradient is a sum that the scale brings to a mean.
      parameter.gradient.set(gradient.map((g) => g * 8))
      optimizer.step(learningRate, 1 / 8)
      parameter.data.forEach((value, i) =>
        expect(Math.abs(value - golden[step]![i]!), `step ${step}`).toBeLessThan(3e-7),
      )
    })
  })

  test('leaves the gradients at zero for the next step', () => {
    const parameter = trainable([1, 2])
    parameter.gradient.set([3, 4])
    new AdamW([parameter], options).step(0.1, 1)
    expect([...parameter.gradient]).toEqual([0, 0])
  })

  test('moves nothing at a rate of zero, as in the first step of a warmup, but remembers the gradient', () => {
    const parameter = trainable([1, 2])
    const optimizer = new AdamW([parameter], options)
    parameter.gradient.set([3, 4])
    optimizer.step(0, 1)
    expect([...parameter.data]).toEqual([1, 2])
    optimizer.step(0.1, 1)
    expect(parameter.data[0]).toBeLessThan(0.99)
  })
})

describe('clipping', () => {
  const pair = (): Trainable[] => {
    const [a, c] = [trainable([0, 0]), trainable([0])]
    a.gradient.set([3, 0])
    c.gradient.set([4])
    return [a, c]
  }

  test('goes by the norm of all gradients together', () => {
    expect(gradientNorm(pair())).toBe(5)
    expect(gradientNorm([])).toBe(0)
  })

  // torch.nn.utils.clip_grad_norm_ of gradients [3, 0] and [4] to 2.0 gives [1.1999998092651367, 0] and [1.5999996662139893].
  test('scales as clip_grad_norm_ does', () => {
    expect(Math.fround(3 * clipFactor(5, 2))).toBeCloseTo(1.1999998092651367, 6)
    expect(4 * clipFactor(5, 2)).toBeLessThan(1.6)
  })

  test('leaves a smaller norm alone, and every norm where there is no limit', () => {
    expect(clipFactor(0.5, 1)).toBe(1)
    expect(clipFactor(0, 1)).toBe(1)
    expect(clipFactor(1e9, 0)).toBe(1)
  })
})
