import { z } from 'zod'
import { beta, count, option, positive } from './fields.ts'
import { optionsOf } from './options.ts'
import { show } from './show.ts'

const steps = z.int().min(0)
const rate = z.number().min(0).max(100)
const share = z.number().min(0).max(1)
const course = z.enum(['linear', 'cosine', '1-sqrt'])
/** Texts too, as flags have them. */
const yesOrNo = option(z.union([z.boolean(), z.stringbool()]), {
  group: 'Optimization',
  description: '',
  accepts: 'true or false',
})

const minimum = {
  numCycles: positive.default(0.5),
  /** Lowest learning rate; or as a share of the highest. transformers demands one of the two. */
  minLr: rate.optional(),
  minLrRate: share.default(0.1),
}

/** The schedules of transformers' `get_scheduler` that are a function of the step, and what each takes in `lr_scheduler_kwargs`. */
const scheduleSettings = {
  linear: z.strictObject({}),
  cosine: z.strictObject({ numCycles: positive.default(0.5) }),
  cosine_with_restarts: z.strictObject({ numCycles: count.default(1) }),
  cosine_with_min_lr: z.strictObject(minimum),
  cosine_warmup_with_min_lr: z.strictObject({ ...minimum, warmupLrRate: share.optional() }),
  polynomial: z.strictObject({ lrEnd: rate.default(1e-7), power: positive.default(1) }),
  constant: z.strictObject({}),
  constant_with_warmup: z.strictObject({}),
  inverse_sqrt: z.strictObject({ timescale: positive.optional() }),
  warmup_stable_decay: z.strictObject({
    /** transformers demands it. Unset: a tenth of all steps. */
    numDecaySteps: steps.optional(),
    /** Unset: what warmup and decay leave. */
    numStableSteps: steps.optional(),
    warmupType: course.default('linear'),
    decayType: course.default('cosine'),
    minLrRatio: share.default(0),
    numCycles: positive.default(0.5),
  }),
}

/** The optimizers, and what each takes in `optim_args` as transformers' Trainer reads it. */
const optimizerSettings = {
  adamw: z.strictObject({}),
  'adamw-8bit': z.strictObject({}),
  sgd: z.strictObject({
    momentum: beta.default(0),
    dampening: share.default(0),
    nesterov: yesOrNo.default(false),
  }),
}

export type Schedule = keyof typeof scheduleSettings
export type OptimizerName = keyof typeof optimizerSettings
export type ScheduleSettings<S extends Schedule> = z.output<(typeof scheduleSettings)[S]>

export const schedules = Object.keys(scheduleSettings) as [Schedule, ...Schedule[]]
export const optimizers = Object.keys(optimizerSettings) as [OptimizerName, ...OptimizerName[]]

/** The settings of a schedule of a resolved configuration, complete. */
export function settingsOfSchedule<S extends Schedule>(schedule: S, given: Settings = {}): ScheduleSettings<S> {
  const schema: z.ZodObject = scheduleSettings[schedule]
  return schema.parse(given) as ScheduleSettings<S>
}

/** The settings of SGD of a resolved configuration, complete. */
export function settingsOfSgd(given: Settings = {}): z.output<(typeof optimizerSettings)['sgd']> {
  return optimizerSettings.sgd.parse(given)
}

type Settings = Record<string, string | number | boolean>

/** The options that decide which settings there are, and those that hold them. */
interface WithSettings {
  readonly lrSchedulerType?: Schedule | undefined
  readonly optim?: OptimizerName | undefined
  readonly learningRate?: number | undefined
  lrSchedulerKwargs?: Settings | undefined
  optimArgs?: Settings | undefined
}

/** What is wrong with the settings of schedule and optimizer. Those of `config` are spelled in camelCase afterwards. */
export function checkSettings(config: WithSettings, nameOf: (key: keyof WithSettings) => string): string[] {
  const { lrSchedulerType, optim, learningRate } = config
  const problems: string[] = []
  const read = (key: 'lrSchedulerKwargs' | 'optimArgs', owner: string, schema: z.ZodObject): Settings => {
    const result = readSettings(config[key] ?? {}, { where: nameOf(key), owner, schema })
    problems.push(...result.problems)
    if (config[key] !== undefined) config[key] = result.settings
    return result.settings
  }
  if (optim !== undefined) {
    const { nesterov, momentum = 0, dampening = 0 } = read('optimArgs', optim, optimizerSettings[optim])
    if (nesterov === true && (momentum === 0 || dampening !== 0)) {
      problems.push(`${nameOf('optimArgs')}.nesterov: needs a momentum and no dampening`)
    }
  }
  if (lrSchedulerType === undefined) return problems
  const where = nameOf('lrSchedulerKwargs')
  const { minLr, minLrRate, lrEnd } = read('lrSchedulerKwargs', lrSchedulerType, scheduleSettings[lrSchedulerType])
  if (minLr !== undefined && minLrRate !== undefined) {
    problems.push(`${where}.minLr: cannot be combined with minLrRate; choose one`)
  }
  const highest = learningRate ?? Infinity
  if (typeof minLr === 'number' && minLr > highest) {
    problems.push(`${where}.minLr: found ${minLr}, expected at most ${nameOf('learningRate')}, which is ${highest}`)
  }
  // The default, too, may be above the learning rate.
  const end = lrSchedulerType === 'polynomial' ? (lrEnd ?? settingsOfSchedule('polynomial').lrEnd) : 0
  if (typeof end === 'number' && end >= highest) {
    problems.push(`${where}.lrEnd: found ${end}, expected less than ${nameOf('learningRate')}, which is ${highest}`)
  }
  return problems
}

/** Settings by name, camelCase or snake_case. */
function readSettings(
  given: Settings,
  { where, owner, schema }: { readonly where: string; readonly owner: string; readonly schema: z.ZodObject },
): { readonly settings: Settings; readonly problems: string[] } {
  const options = optionsOf(schema)
  const settings: Settings = {}
  const problems: string[] = []
  for (const [name, value] of Object.entries(given)) {
    const option = options.find(({ key, snake }) => key === name || snake === name)
    if (option === undefined) {
      const valid = options.length === 0 ? 'nothing' : options.map(({ key }) => key).join(', ')
      problems.push(`${where}.${name}: unknown; ${owner} takes ${valid}`)
      continue
    }
    const result = (schema.shape[option.key] as z.ZodType<Settings[string]>).safeParse(value)
    if (!result.success) {
      problems.push(`${where}.${name}: found ${show(value)}, expected ${option.accepts}`)
    } else if (option.key in settings) {
      problems.push(`${where}.${name}: given twice`)
    } else {
      settings[option.key] = result.data
    }
  }
  return { settings, problems }
}
