import type { OpenDecoder } from '../../session/decoder.ts'
import { seed } from './context.ts'
import type { Batch } from '../../text/batches.ts'
import { evaluateBatches } from '../../train/evaluate.ts'
import { accumulateGradients } from '../../train/step.ts'
import { fillDropoutMask, stream } from '../../util/random.ts'

/** A sum of losses in nats, and its gradients by parameter name. */
export interface Gradients {
  readonly lossSum: number
  readonly of: ReadonlyMap<string, Float32Array>
}

/** The gradients of the sum of losses of the micro-batches of a step, with its dropout masks; of some parameters, or of all. */
export async function gradientsOf(
  { pipeline, trainables }: OpenDecoder,
  batches: readonly Batch[],
  only: (name: string) => boolean = () => true,
): Promise<Gradients> {
  for (const { gradient } of trainables.values()) gradient.fill(0)
  const { lossSum } = await accumulateGradients({ pipeline, trainables, batches, seed, step: 1 })
  const wanted = [...trainables].filter(([name]) => only(name))
  return { lossSum, of: new Map(wanted.map(([name, { gradient }]) => [name, gradient.slice()])) }
}

/** The largest distance between two gradients of a parameter, relative to the first one's norm. */
export function gradientDistance(one: Gradients, other: Gradients): number {
  let worst = 0
  for (const [name, gradient] of one.of) {
    const second = other.of.get(name)
    let [difference, norm] = [0, 0]
    gradient.forEach((value, i) => {
      difference += (value - (second?.[i] ?? NaN)) ** 2
      norm += value ** 2
    })
    worst = Math.max(worst, difference === 0 ? 0 : Math.sqrt(difference / norm))
  }
  return worst
}

/** A way through the space of parameters, from where they are. */
interface Path {
  readonly data: Float32Array
  readonly start: Float32Array
  readonly gradient: Float32Array
  readonly direction: Float32Array
}

/** The change of the loss per unit of h: as the gradients claim it, and how far differences of losses are from that. */
interface Slope {
  readonly claimed: number
  readonly error: number
}

/** Ways to leave a point, to see how the loss changes. */
export type Directions = 'along' | 'across'

/**
 * Compares the gradients of some parameters with differences of losses, (L(w + h d) - L(w - h d)) / 2 h, and gives the relative error.
 * `along`: d is the gradient itself, where rounding hardly counts, so that a factor a little off 1 shows. `across`: random directions, for
 * what is at right angles to the gradient, such as a term that it lacks; `reach` is the largest step there, as a share of the weights. The
 * weights are the same afterwards.
 */
export async function derivativeError(
  model: OpenDecoder,
  batches: readonly Batch[],
  options: { readonly only: (name: string) => boolean; readonly directions: Directions; readonly reach: number },
): Promise<number> {
  const { only, directions, reach } = options
  const { lossSum, of: gradients } = await gradientsOf(model, batches, only)
  const loss = lossOf(model, batches)
  const paths = (direction: (path: Omit<Path, 'direction'>, name: string) => Float32Array): Path[] =>
    [...gradients].map(([name, gradient]) => {
      const { data } = model.trainables.get(name)!
      const path = { data, start: data.slice(), gradient }
      return { ...path, direction: direction(path, name) }
    })
  // Steps are in proportion to the weights, as norms and matrices differ in scale.
  if (directions === 'along') {
    const down = paths(({ gradient, data }) => scaled(gradient, sizeOf(data)))
    // Far enough for the loss to change by a fiftieth, but the weights by at most a twentieth: where a model has learned nothing, its loss
    // hardly follows the gradient.
    const bySlope = (0.02 * lossSum) / down.reduce((sum, path) => sum + dot(path.gradient, path.direction), 0)
    const byWeight = 0.05 / Math.max(...down.map((path) => rms(path.gradient)))
    return relativeError([await slope(down, Math.min(bySlope, byWeight), loss)])
  }
  const across: Slope[] = []
  for (let number = 0; number < 2; number++) {
    const random = paths(({ data }, name) => {
      const signs = new Uint8Array(data.length)
      fillDropoutMask(signs, 0.5, stream(seed, `selftest direction ${name}`, number))
      const size = sizeOf(data)
      return Float32Array.from(signs, (sign) => (sign === 1 ? size : -size))
    })
    across.push(await slope(random, reach, loss))
  }
  return relativeError(across)
}

/** Together, so that a direction in which the loss happens to be flat does no harm. */
function relativeError(slopes: readonly Slope[]): number {
  const norm = (numbers: readonly number[]): number => Math.hypot(...numbers)
  return norm(slopes.map(({ error }) => error)) / norm(slopes.map(({ claimed }) => claimed))
}

/** From differences at h, h / 2 and h / 4, of whose errors those of order two and four in h cancel (Richardson). */
async function slope(paths: readonly Path[], h: number, loss: () => Promise<number>): Promise<Slope> {
  let claimed = 0
  const error = async (step: number): Promise<number> => {
    const up = await at(paths, step, loss)
    const down = await at(paths, -step, loss)
    claimed = (up.claimed - down.claimed) / (2 * step)
    return (up.loss - down.loss) / (2 * step) - claimed
  }
  const [first, second, third] = [await error(h), await error(h / 2), await error(h / 4)]
  return { error: (64 * third - 20 * second + first) / 45, claimed }
}

/** The loss at h along the paths, and the change that the gradients claim for the step as f32 has rounded it. */
async function at(
  paths: readonly Path[],
  h: number,
  loss: () => Promise<number>,
): Promise<{ readonly loss: number; readonly claimed: number }> {
  let claimed = 0
  for (const { data, start, gradient, direction } of paths) {
    for (let i = 0; i < data.length; i++) {
      data[i] = start[i]! + h * direction[i]!
      claimed += gradient[i]! * (data[i]! - start[i]!)
    }
  }
  try {
    return { loss: await loss(), claimed }
  } finally {
    for (const { data, start } of paths) data.set(start)
  }
}

/** The sum of losses; by training programs where there is dropout, whose masks are those of the gradients. */
function lossOf(model: OpenDecoder, batches: readonly Batch[]): () => Promise<number> {
  const { pipeline } = model
  if ((model.lora?.loraDropout ?? 0) > 0) return async () => (await gradientsOf(model, batches, () => false)).lossSum
  return async () => {
    const { loss, labelTokens } = await evaluateBatches({ pipeline, batches })
    return loss * labelTokens
  }
}

function scaled(values: Float32Array, factor: number): Float32Array {
  return values.map((value) => value * factor)
}

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0)
}

function rms(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length)
}

/** How large a weight is, for steps in proportion; biases, and an adapter that has hardly begun, may be zero or nearly so. */
function sizeOf(data: Float32Array): number {
  return Math.max(rms(data), 0.01)
}
