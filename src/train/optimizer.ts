import { settingsOfSgd } from '../config/index.ts'
import type { Trainable } from '../engine/trainable.ts'
import { isEmbedding } from '../model/names.ts'
import type { OptimizerConfig } from './config.ts'
import { BlockwiseMoments, smallest8bitSize } from './moments-8bit.ts'
import { FloatMoments, type Moments } from './moments.ts'

/** Brings weights down their gradients. */
export interface Optimizer {
  /** One update with gradients times `scale`, after which the gradients are zero. */
  step(learningRate: number, scale: number): void
  /** Updates so far. Set it together with `state` to go on where another optimizer stopped. */
  steps: number
  /** What it remembers between updates, by name: its own memory, to be saved from and read into. */
  readonly state: ReadonlyMap<string, Float32Array | Uint8Array>
}

/** The optimizer that a configuration asks for. */
export function makeOptimizer(parameters: Iterable<Trainable>, config: OptimizerConfig): Optimizer {
  const { optim, weightDecay, loraplusLrRatio: ratio = 1 } = config
  const groups = {
    weightDecay,
    decays: isDecayed,
    // Where every weight is trained there is no adapter to learn faster than the rest.
    rateFactor: (parameter: Trainable) => (config.method !== 'full' && learnsFaster(parameter) ? ratio : 1),
  }
  if (optim === 'sgd') return new Sgd(parameters, { ...groups, ...settingsOfSgd(config.optimArgs) })
  const { adamBeta1: beta1, adamBeta2: beta2, adamEpsilon: epsilon } = config
  return new AdamW(parameters, { ...groups, beta1, beta2, epsilon, bits: optim === 'adamw-8bit' ? 8 : 32 })
}

/** Bytes that the optimizer remembers of a trained weight of `size` elements. */
export function stateBytes(name: string, size: number, { optim, optimArgs }: OptimizerConfig): number {
  if (optim === 'sgd') return settingsOfSgd(optimArgs).momentum > 0 ? 4 * size : 0
  if (optim === 'adamw-8bit' && hasMomentsIn8bit(name, size)) return BlockwiseMoments.bytes(size)
  return 8 * size
}

/** What differs from parameter to parameter, as between PyTorch's parameter groups. */
interface GroupOptions {
  readonly weightDecay: number
  /** Whether weight decay applies to a parameter. */
  readonly decays: (parameter: Trainable) => boolean
  /** Factor on the learning rate of a parameter; 1 by default. */
  readonly rateFactor?: (parameter: Trainable) => number
}

interface AdamWOptions extends GroupOptions {
  readonly beta1: number
  readonly beta2: number
  readonly epsilon: number
  /** Of the optimizer's state, where the parameter has moments in 8 bits; 32 by default. */
  readonly bits?: 8 | 32
}

interface SgdOptions extends GroupOptions {
  readonly momentum: number
  readonly dampening: number
  readonly nesterov: boolean
}

/** Biases and norms are not decayed: the patterns of transformers' `Trainer.get_decay_parameter_names`. */
export function isDecayed({ name }: Pick<Trainable, 'name'>): boolean {
  return !/bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)/.test(name.toLowerCase())
}

/** The parameters that LoRA+ gives a larger learning rate, as PEFT's `create_loraplus_optimizer`. Hayou et al. 2024, https://arxiv.org/abs/2402.12354. */
function learnsFaster({ name, shape }: Trainable): boolean {
  return name.endsWith('.lora_B.weight') || shape.length === 1
}

/** Whether 8-bit AdamW keeps a parameter's state in 8 bits. That of small tensors and, as in transformers' Trainer, of the embedding stays f32. */
function hasMomentsIn8bit(name: string, size: number): boolean {
  return size >= smallest8bitSize && !isEmbedding(name)
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
    const { beta1, beta2, epsilon, weightDecay, decays, rateFactor } = this.#options
    const correction = 1 - beta1 ** this.steps
    const root2 = Math.sqrt(1 - beta2 ** this.steps)
    for (const [parameter, moments] of this.#moments) {
      const rate = learningRate * (rateFactor?.(parameter) ?? 1)
      const keep = decays(parameter) ? 1 - rate * weightDecay : 1
      const size = rate / correction
      moments.update(parameter.data, parameter.gradient, { beta1, beta2, epsilon, scale, keep, size, root2 })
    }
  }
}

/** Stochastic gradient descent as `torch.optim.SGD`: weight decay is part of the gradient, and of what the momentum remembers. */
class Sgd implements Optimizer {
  steps = 0
  readonly state: ReadonlyMap<string, Float32Array>
  readonly #parameters: readonly Trainable[]
  readonly #options: SgdOptions

  constructor(parameters: Iterable<Trainable>, options: SgdOptions) {
    this.#options = options
    this.#parameters = [...parameters]
    const remembered = options.momentum > 0 ? this.#parameters : []
    this.state = new Map(remembered.map(({ name, data }) => [bufferName(name), new Float32Array(data.length)]))
  }

  step(learningRate: number, scale: number): void {
    this.steps++
    const { weightDecay, decays, rateFactor, momentum, dampening, nesterov } = this.#options
    // The first gradient is not damped.
    const fresh = this.steps === 1 ? 1 : 1 - dampening
    for (const parameter of this.#parameters) {
      const { name, data, gradient } = parameter
      const rate = learningRate * (rateFactor?.(parameter) ?? 1)
      const decay = decays(parameter) ? weightDecay : 0
      const buffer = this.state.get(bufferName(name))
      for (let i = 0; i < data.length; i++) {
        let move = gradient[i]! * scale + decay * data[i]!
        if (buffer !== undefined) {
          const velocity = momentum * buffer[i]! + fresh * move
          buffer[i] = velocity
          move = nesterov ? move + momentum * velocity : velocity
        }
        data[i] = data[i]! - rate * move
        gradient[i] = 0
      }
    }
  }
}

function bufferName(name: string): string {
  return `${name}.momentum_buffer`
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
