import { settingsOfSchedule, type Schedule, type ScheduleSettings } from '../config/index.ts'
import type { ScheduleConfig } from './config.ts'

/** Where a run is, and what its course depends on. */
interface Place {
  /** Optimizer step, from 0. */
  readonly step: number
  readonly steps: number
  readonly warmupSteps: number
  /** The highest. */
  readonly learningRate: number
}

type Factor<S extends Schedule> = (place: Place, settings: ScheduleSettings<S>) => number

/** The factor on the learning rate by schedule, as in transformers' `optimization.py`. */
const factors: { readonly [S in Schedule]: Factor<S> } = {
  constant: () => 1,
  constant_with_warmup: warmed(() => 1),
  linear: warmed(({ step, steps, warmupSteps }) => Math.max(0, (steps - step) / Math.max(1, steps - warmupSteps))),
  cosine: warmed((place, { numCycles }) => Math.max(0, wave(numCycles * progress(place)))),
  cosine_with_restarts: warmed((place, { numCycles }) => {
    const done = progress(place)
    return done >= 1 ? 0 : wave(((numCycles * done) % 1) / 2)
  }),
  cosine_with_min_lr: warmed((place, settings) =>
    above(minimumOf(place, settings), wave(settings.numCycles * progress(place))),
  ),
  // Begins and ends a step earlier than the others, and not at 0.
  cosine_warmup_with_min_lr: (place, settings) => {
    const { step, steps, warmupSteps } = place
    const { warmupLrRate: start } = settings
    if (step < warmupSteps) {
      return start === undefined ? (step + 1) / warmupSteps : above(start, step / Math.max(1, warmupSteps - 1))
    }
    const done = (step - warmupSteps + 1) / Math.max(1, steps - warmupSteps)
    return above(minimumOf(place, settings), wave(settings.numCycles * done))
  },
  polynomial: warmed(({ step, steps, warmupSteps, learningRate }, { lrEnd, power }) => {
    const end = lrEnd / learningRate
    const left = step >= steps ? 0 : 1 - (step - warmupSteps) / (steps - warmupSteps)
    return above(end, left ** power)
  }),
  inverse_sqrt: warmed(({ step, warmupSteps }, { timescale = warmupSteps > 0 ? warmupSteps : 10_000 }) =>
    Math.sqrt(timescale / (step + timescale - warmupSteps)),
  ),
  warmup_stable_decay: ({ step, steps, warmupSteps }, settings) => {
    const { numDecaySteps = Math.ceil(steps / 10), warmupType, decayType, minLrRatio, numCycles } = settings
    const { numStableSteps = steps - warmupSteps - numDecaySteps } = settings
    if (step < warmupSteps) return above(minLrRatio, rise(warmupType, step / warmupSteps))
    const decayed = step - warmupSteps - numStableSteps
    if (decayed < 0) return 1
    if (decayed >= numDecaySteps) return minLrRatio
    return above(minLrRatio, fall(decayType, decayed / numDecaySteps, numCycles))
  },
}

/** The factor after a linear warmup, whose first step has rate 0. */
function warmed<S extends Schedule>(after: Factor<S>): Factor<S> {
  return (place, settings) => (place.step < place.warmupSteps ? place.step / place.warmupSteps : after(place, settings))
}

/** The share of the steps after the warmup that is done. */
function progress({ step, steps, warmupSteps }: Place): number {
  return (step - warmupSteps) / Math.max(1, steps - warmupSteps)
}

/** From 1 at 0 cycles to 0 at half a cycle, and back. */
function wave(cycles: number): number {
  return 0.5 * (1 + Math.cos(2 * Math.PI * cycles))
}

function rise(type: 'linear' | 'cosine' | '1-sqrt', done: number): number {
  return type === 'linear' ? done : type === 'cosine' ? 0.5 * (1 - Math.cos(Math.PI * done)) : 1 - Math.sqrt(1 - done)
}

function fall(type: 'linear' | 'cosine' | '1-sqrt', done: number, cycles: number): number {
  return type === 'linear' ? 1 - done : type === 'cosine' ? wave(cycles * done) : 1 - Math.sqrt(done)
}

/** A course from 1 to 0 that ends at `minimum` in its place. */
function above(minimum: number, factor: number): number {
  return Math.max(0, factor * (1 - minimum) + minimum)
}

function minimumOf({ learningRate }: Place, settings: ScheduleSettings<'cosine_with_min_lr'>): number {
  return settings.minLr === undefined ? settings.minLrRate : settings.minLr / learningRate
}

/**
 * The learning rates of a run of `steps` optimizer steps, as a function of the step (from 0). A warmup is a number of steps or, below 1,
 * their share of all, rounded up, as transformers' `get_warmup_steps` has it.
 */
export function learningRates(config: ScheduleConfig, steps: number): (step: number) => number {
  const { learningRate, lrSchedulerType, lrSchedulerKwargs, warmupSteps: warmup, warmupRatio } = config
  const warmupSteps = warmup >= 1 ? warmup : Math.ceil((warmup > 0 ? warmup : warmupRatio) * steps)
  const factor = factorOf(lrSchedulerType, settingsOfSchedule(lrSchedulerType, lrSchedulerKwargs))
  return (step) => learningRate * factor({ step, steps, warmupSteps, learningRate })
}

function factorOf<S extends Schedule>(schedule: S, settings: ScheduleSettings<S>): (place: Place) => number {
  return (place) => factors[schedule](place, settings)
}
