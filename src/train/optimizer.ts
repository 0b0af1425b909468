/** A tensor that is trained, f32, with the sum of its gradients since the last step. */
export interface Trainable {
  readonly name: string
  readonly shape: readonly number[]
  readonly data: Float32Array
  readonly gradient: Float32Array
}

export interface AdamWOptions {
  readonly beta1: number
  readonly beta2: number
  readonly epsilon: number
  readonly weightDecay: number
  /** Whether weight decay applies to a parameter. */
  readonly decays: (parameter: Trainable) => boolean
}

/** Biases and norms are not decayed, as in transformers' Trainer. */
export function isDecayed({ name }: Trainable): boolean {
  return !name.endsWith('.bias') && !name.endsWith('norm.weight')
}

/** Adam with decoupled weight decay. Loshchilov and Hutter 2019; operations in the order of `torch.optim.AdamW`. */
export class AdamW {
  readonly #options: AdamWOptions
  readonly #moments = new Map<Trainable, { readonly first: Float32Array; readonly second: Float32Array }>()
  #steps = 0

  constructor(parameters: Iterable<Trainable>, options: AdamWOptions) {
    this.#options = options
    for (const parameter of parameters) {
      const size = parameter.data.length
      this.#moments.set(parameter, { first: new Float32Array(size), second: new Float32Array(size) })
    }
  }

  /** One update with gradients times `scale`, after which the gradients are zero. */
  step(learningRate: number, scale: number): void {
    this.#steps++
    const { beta1, beta2, epsilon, weightDecay, decays } = this.#options
    const correction1 = 1 - beta1 ** this.#steps
    const root2 = Math.sqrt(1 - beta2 ** this.#steps)
    for (const [parameter, { first, second }] of this.#moments) {
      const { data, gradient } = parameter
      const keep = decays(parameter) ? 1 - learningRate * weightDecay : 1
      const size = learningRate / correction1
      for (let i = 0; i < data.length; i++) {
        const g = gradient[i]! * scale
        const m = first[i]! + (g - first[i]!) * (1 - beta1)
        const v = second[i]! * beta2 + g * g * (1 - beta2)
        first[i] = m
        second[i] = v
        data[i] = data[i]! * keep - (size * m) / (Math.sqrt(v) / root2 + epsilon)
        gradient[i] = 0
      }
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
