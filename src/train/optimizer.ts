import type { TrainConfig } from '../config.ts'
import { embeddingName } from '../model/stages.ts'
import { BlockwiseMoments, smallest8bitSize } from './moments-8bit.ts'
import { FloatMoments, type Moments } from './moments.ts'

/** A tensor that is trained, f32, with the sum of its gradients since the last step. */
export interface Trainable {
  readonly name: string
  readonly shape: readonly number[]
  readonly data: Float32Array
  readonly gradient: Float32Array
}

/** Brings weights down their gradients. */
export interface Optimizer {
  /** One update with gradients times `scale`, after which the gradients are zero. */
  step(learningRate: number, scale: number): void
  /** Updates so far. Set it together with `state` to go on where another optimizer stopped. */
  steps: number
  /** What it remembers between updates, by name: its own memory, to be saved from and read into. */
  readonly state: ReadonlyMap<string, Float32Array | Uint8Array>
}

export type OptimizerConfig = Pick<TrainConfig, 'optim' | 'adamBeta1' | 'adamBeta2' | 'adamEpsilon' | 'weightDecay'>

/** The optimizer that a configuration asks for. */
export function makeOptimizer(parameters: Iterable<Trainable>, config: OptimizerConfig): Optimizer {
  return new AdamW(parameters, {
    beta1: config.adamBeta1,
    beta2: config.adamBeta2,
    epsilon: config.adamEpsilon,
    weightDecay: config.weightDecay,
    decays: isDecayed,
    bits: config.optim === 'adamw-8bit' ? 8 : 32,
  })
}

export interface AdamWOptions {
  readonly beta1: number
  readonly beta2: number
  readonly epsilon: number
  readonly weightDecay: number
  /** Whether weight decay applies to a parameter. */
  readonly decays: (parameter: Trainable) => boolean
  /** Of the optimizer's state, where `hasMomentsIn8bit`; 32 by default. */
  readonly bits?: 8 | 32
}

/** Biases and norms are not decayed, as in transformers' Trainer. */
export function isDecayed({ name }: Pick<Trainable, 'name'>): boolean {
  return !name.endsWith('.bias') && !name.endsWith('norm.weight')
}

/** Whether 8-bit AdamW keeps a parameter's state in 8 bits. That of small tensors and, as in transformers' Trainer, of the embedding stays f32. */
export function hasMomentsIn8bit(name: string, size: number): boolean {
  return size >= smallest8bitSize && name !== embeddingName
}

/** Adam with decoupled weight decay. Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101. */
export class AdamW implements Optimizer {
  steps = 0
  readonly state: ReadonlyMap<string, Float32Array | Uint8Array>
  readonly #options: AdamWOptions
  readonly #moments = new Map<Trainable, Moments>()

  constructor(parameters: Iterable<Trainable>, options: AdamWOptions) {
    this.#options = options
    const state = new Map<string, Float32Array | Uint8Array>()
    for (const parameter of parameters) {
      const { name, data } = parameter
      const packed = options.bits === 8 && hasMomentsIn8bit(name, data.length)
      const moments = packed ? new BlockwiseMoments(data.length) : new FloatMoments(data.length)
      this.#moments.set(parameter, moments)
      for (const [part, tensor] of Object.entries(moments.tensors)) state.set(`${name}.${part}`, tensor)
    }
    this.state = state
  }

  step(learningRate: number, scale: number): void {
    this.steps++
    const { beta1, beta2, epsilon, weightDecay, decays } = this.#options
    const size = learningRate / (1 - beta1 ** this.steps)
    const root2 = Math.sqrt(1 - beta2 ** this.steps)
    for (const [parameter, moments] of this.#moments) {
      const keep = decays(parameter) ? 1 - learningRate * weightDecay : 1
      moments.update(parameter.data, parameter.gradient, { beta1, beta2, epsilon, scale, keep, size, root2 })
    }
  }
}

/** The Euclidean norm of all gradients together. */
export function gradientNorm(parameters: Iterable<Trainable>): number {
  let total = 0
  for (const { gradient } of parameters) for (let i = 0; i < gradient.length; i++) total += gradient[i]! * gradient[i]!
  return Math.sqrt(total)
}

/** What brings a gradient of this norm down to `maxNorm`, as `torch.nn.utils.clip_grad_norm_`; 0 means no limit. */
export function clipFactor(norm: number, maxNorm: number): number {
  return maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1
}
