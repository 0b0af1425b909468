import { expect, test } from 'vitest'
import { fillNormal, stream, uniform } from '../util/random.ts'
import { findSpike, remember, type Spike, type SpikeState, type StepValues } from './watch-spikes.ts'

const start = (): SpikeState => ({ losses: [], gradNorms: [], labelTokens: [], firstGradNorm: undefined })

/** What is found at each step of a run, by its number. */
function spikesOf(run: readonly StepValues[], state = start()): Map<number, Spike> {
  const found = new Map<number, Spike>()
  run.forEach((step, index) => {
    const spike = findSpike(state, step)
    if (spike !== undefined) found.set(index, spike)
    remember(state, step)
  })
  return found
}

function normals(n: number, seed: number, purpose: string): Float32Array {
  const out = new Float32Array(n)
  fillNormal(out, 0, 1, stream(seed, purpose))
  return out
}

/**
 * A run as runs go: a loss that falls from one level to another, in stairs where examples are seen again, with noise that is larger
 * where a step has few label tokens; the last step of an epoch has fewer of them. Gradient norms vary by factors.
 */
function normalRun(seed: number, steps = 120): StepValues[] {
  const [a, b, c, d, e, f, g, h] = uniform(stream(seed, 'run'), 8) as unknown as number[]
  const [from, to] = [1 + 3 * a!, 0.05 + 1.5 * b!]
  const perEpoch = 5 + Math.floor(60 * c!)
  const stair = 0.75 + 0.25 * d!
  const lossNoise = 0.02 + 0.18 * e!
  const [normFrom, normTo, normNoise] = [Math.exp(4 * f! - 2), Math.exp(2 * g! - 1), 0.1 + 0.25 * h!]
  const tokens = 400
  const [noise1, noise2, noise3] = ['loss', 'norm', 'tokens'].map((name) => normals(steps, seed, name)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ]
  return Array.from({ length: steps }, (_, i) => {
    const share = i % perEpoch === perEpoch - 1 ? 0.05 + 0.95 * d! : 1
    const labelTokens = Math.max(4, Math.round(tokens * share * Math.exp(0.3 * noise3[i]!)))
    const less = Math.sqrt(tokens / labelTokens)
    const level = (to + (from - to) * Math.exp(-i / (10 + 100 * b!))) * stair ** Math.min(4, Math.floor(i / perEpoch))
    const loss = level * Math.exp(lossNoise * less * noise1[i]!)
    const norm = normFrom * (1 + (normTo - 1) * (1 - Math.exp(-i / 50)))
    return { loss, gradNorm: norm * less * Math.exp(normNoise * noise2[i]!), labelTokens }
  })
}

const runs = Array.from({ length: 200 }, (_, seed) => normalRun(seed))

test('no alarm on 200 normal runs', () => {
  const alarms = runs.flatMap((run, seed) => [...spikesOf(run)].map(([step, spike]) => ({ seed, step, ...spike })))
  expect(alarms).toEqual([])
})

test.each([
  ['loss', 200, (step: StepValues) => ({ ...step, loss: 12 })],
  ['gradNorm', 200, (step: StepValues) => ({ ...step, gradNorm: 100 * step.gradNorm })],
  ['nan', 20, (step: StepValues) => ({ ...step, loss: NaN })],
  ['nan', 20, (step: StepValues) => ({ ...step, gradNorm: Infinity })],
  ['nan', 20, (step: StepValues) => ({ ...step, gradNorm: 1e20 })],
] as const)('an alarm of kind %s on each of %i spikes, and on no step after', (kind, count, spoil) => {
  const found = runs.slice(0, count).map((run, seed) => {
    const at = 20 + Math.floor(95 * uniform(stream(seed, 'place'), 1)[0]!)
    const spikes = spikesOf(run.map((step, index) => (index === at ? spoil(step) : step)))
    return [...spikes].map(([step, spike]) => `${seed}: ${spike.kind} at ${step - at}`)
  })
  expect(found).toEqual(Array.from({ length: count }, (_, seed) => [`${seed}: ${kind} at 0`]))
})

test('the first steps are judged by nothing but NaN', () => {
  const wild = Array.from({ length: 16 }, (_, index) => ({ loss: 10 ** (index % 3), gradNorm: 1, labelTokens: 10 }))
  expect(spikesOf(wild).size).toBe(0)
  expect(spikesOf([{ loss: Infinity, gradNorm: 1, labelTokens: 10 }]).get(0)?.kind).toBe('nan')
})

test('tiny noise is no spike, however regular the steps before were', () => {
  const flat = { loss: 2, gradNorm: 0.5, labelTokens: 100 }
  const state = start()
  expect(spikesOf(Array<StepValues>(64).fill(flat), state).size).toBe(0)
  expect(findSpike(state, { ...flat, loss: 2.45, gradNorm: 1.9 })).toBeUndefined()
  expect(findSpike(state, { ...flat, loss: 2.55 })).toMatchObject({ kind: 'loss', expected: { median: 2, limit: 2.5 } })
  expect(findSpike(state, { ...flat, gradNorm: 2.1 })).toMatchObject({ kind: 'gradNorm' })
  // A step of a quarter of the label tokens may stray twice as far.
  expect(findSpike(state, { loss: 2.9, gradNorm: 3.9, labelTokens: 25 })).toBeUndefined()
  expect(findSpike(state, { loss: 3.1, gradNorm: 0.5, labelTokens: 25 })?.expected?.limit).toBeCloseTo(3, 10)
})

test('a loss that rises slowly is reported, and taken as it is once the window has passed', () => {
  const noise = normals(250, 1, 'rise')
  const run = Array.from({ length: 250 }, (_, i) => ({
    loss: 1.5 + Math.min(5, Math.max(0, (i - 50) / 10)) + 0.1 * noise[i]!,
    gradNorm: 1,
    labelTokens: 100,
  }))
  const spikes = [...spikesOf(run)]
  expect(spikes.length).toBeGreaterThan(5)
  expect(spikes.every(([, { kind, rise }]) => kind === 'loss' && rise)).toBe(true)
  expect(spikes[0]![0]).toBeGreaterThan(50)
  expect(spikes[0]![0]).toBeLessThan(75)
  expect(spikes.at(-1)![0]).toBeLessThan(170)
})

test('the norms that a run began with are no spike once all was learned', () => {
  const steps = (count: number, gradNorm: number): StepValues[] =>
    Array<StepValues>(count).fill({ loss: 1, gradNorm, labelTokens: 100 })
  const state = start()
  expect(spikesOf([...steps(20, 1), ...steps(80, 0.01)], state).size).toBe(0)
  expect(findSpike(state, steps(1, 0.9)[0]!)).toBeUndefined()
  expect(findSpike(state, steps(1, 1.1)[0]!)?.kind).toBe('gradNorm')
})

test('the state goes through JSON', () => {
  const [run] = runs as [StepValues[]]
  const state = start()
  for (const step of run.slice(0, 50)) remember(state, step)
  const copy = JSON.parse(JSON.stringify(state)) as SpikeState
  const rest = run.slice(50).map((step, index) => (index === 30 ? { ...step, loss: 12 } : step))
  expect(spikesOf(rest, copy)).toEqual(spikesOf(rest, state))
  expect(copy).toEqual(state)
})
