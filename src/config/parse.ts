import { homedir } from 'node:os'
import { join } from 'node:path'
import { LowrankError } from '../util/errors.ts'
import { resolveName, resolveSwitch, resolveValue, type Spelling } from './names.ts'
import { optionsOf, snakeCase, type Option } from './options.ts'
import { checkFourBit, checkQuantization, fillQuantization } from './quantization.ts'
import {
  evalSchema,
  loraKeys,
  quantizeSchema,
  selftestSchema,
  trainSchema,
  type EvalConfig,
  type EvalConfigInput,
  type QuantizationOptions,
  type QuantizeConfig,
  type QuantizeConfigInput,
  type SelftestConfig,
  type SelftestConfigInput,
  type TrainConfig,
  type TrainConfigInput,
} from './schema.ts'
import { checkSettings } from './settings.ts'
import { isOptions, show } from './show.ts'
import { isSet } from './unused.ts'
import type { z } from 'zod'

/** One name with its value, and where it was written: `r`, `run.yaml:3: lora_alpha`, `--lora-alpha`. */
export interface Entry {
  readonly name: string
  readonly value: unknown
  readonly where: string
}

/** Entries written in one place: an object, a file or the command line. */
export interface Source {
  readonly entries: readonly Entry[]
  readonly spelling: Spelling
  /** Whether a text stands for a number, list or record too (`q_proj,v_proj`), as in files and flags. */
  readonly text: boolean
  /** Whether it is a file: `~` is the home folder in its paths, as shells have it in those of flags. */
  readonly file?: boolean
}

interface Given {
  readonly option: Option
  readonly value: unknown
  readonly where: string
}

/**
 * Checks the options of a training run and fills in the defaults. Names may be camelCase or snake_case; `null` means
 * unset.
 *
 * @throws LowrankError `config`, naming every problem at once: the option, the value found, what is accepted.
 */
export function parseTrainConfig(input: unknown): TrainConfig {
  return resolveTrain([objectSource(input)])
}

/** Checks the options of an evaluation and fills in the defaults, as `parseTrainConfig` does. */
export function parseEvalConfig(input: unknown): EvalConfig {
  return resolveEval([objectSource(input)])
}

/** Checks the options of `quantize` and fills in the defaults, as `parseTrainConfig` does. */
export function parseQuantizeConfig(input: unknown): QuantizeConfig {
  return resolveQuantize([objectSource(input)])
}

/** Checks the options of `selftest` and fills in the defaults, as `parseTrainConfig` does. */
export function parseSelftestConfig(input: unknown): SelftestConfig {
  return resolveHeld<SelftestConfig>(selftestSchema, [objectSource(input)])
}

/** Checks the options of a call that needs no more than its schema, and fills in the defaults, as `parseTrainConfig` does. */
export function parseOptions<S extends z.ZodObject>(schema: S, input: unknown): z.output<S> {
  return readOptions(schema, [objectSource(input)])
}

/**
 * The options of a training run from several places, the later winning over the earlier; checked, but without defaults,
 * so that they can be passed on as a user would pass them.
 */
export function readTrainConfig(sources: readonly Source[]): TrainConfigInput {
  resolveTrain(sources)
  return rawValues(trainSchema, sources) as TrainConfigInput
}

/** The same for an evaluation. */
export function readEvalConfig(sources: readonly Source[]): EvalConfigInput {
  resolveEval(sources)
  return rawValues(evalSchema, sources) as EvalConfigInput
}

/** The same for `quantize`. */
export function readQuantizeConfig(sources: readonly Source[]): QuantizeConfigInput {
  resolveQuantize(sources)
  return rawValues(quantizeSchema, sources) as QuantizeConfigInput
}

/** The same for `selftest`. */
export function readSelftestConfig(sources: readonly Source[]): SelftestConfigInput {
  resolveHeld<SelftestConfig>(selftestSchema, sources)
  return rawValues(selftestSchema, sources) as SelftestConfigInput
}

/** The options of a command that needs no more than its schema, with defaults filled in. */
export function readOptions<S extends z.ZodObject>(schema: S, sources: readonly Source[]): z.output<S> {
  const { values, problems } = collect(schema, sources)
  raise(problems)
  return values as z.output<S>
}

function resolveTrain(sources: readonly Source[]): TrainConfig {
  const { values, given, problems } = collect(trainSchema, sources)
  const config = values as Partial<TrainConfig>
  const qlora = config.method === 'qlora'
  const name = (key: keyof TrainConfig): string => nameOf(key, given, sources)
  problems.push(
    ...crossCheck(config, name),
    ...checkQuantization(config, { qlora }, name),
    ...checkSettings(config, name),
  )
  raise(problems)
  fillQuantization(config, { qlora })
  config.evalStrategy ??= config.evalSteps !== undefined ? 'steps' : config.valid !== undefined ? 'epoch' : 'no'
  if (config.evalStrategy === 'steps') config.evalSteps ??= config.loggingSteps
  return config as TrainConfig
}

function resolveEval(sources: readonly Source[]): EvalConfig {
  return resolveHeld<EvalConfig>(evalSchema, sources)
}

/** Where an adapter is used, and nothing is said of its base, the record beside it decides. */
function resolveHeld<T extends QuantizationOptions & { method?: TrainConfig['method'] | undefined }>(
  schema: z.ZodObject,
  sources: readonly Source[],
): T {
  return resolveQuantized<T>(schema, sources, (values) => ({
    qlora: values['method'] === 'qlora',
    open: values['adapter'] !== undefined && values['method'] === undefined && values['loadIn8bit'] !== true,
  }))
}

function resolveQuantize(sources: readonly Source[]): QuantizeConfig {
  return resolveQuantized<QuantizeConfig>(quantizeSchema, sources, () => ({ qlora: true, open: false }))
}

/** Options that depend on each other in what concerns quantization only; `open`: `loadIn4bit` may stay unset. */
function resolveQuantized<T extends QuantizationOptions>(
  schema: z.ZodObject,
  sources: readonly Source[],
  read: (values: Readonly<Record<string, unknown>>) => { readonly qlora: boolean; readonly open: boolean },
): T {
  const { values, given, problems } = collect(schema, sources)
  const defaults = read(values)
  const name = (key: string): string => nameOf(key, given, sources)
  problems.push(...checkQuantization(values, defaults, name), ...checkFourBit(values, defaults, name))
  raise(problems)
  if (!defaults.open || values['loadIn4bit'] !== undefined) fillQuantization(values, defaults)
  return values as T
}

/**
 * What no single option can show; options without a use are no problem, see `unused.ts`. `config` lacks the options that
 * are wrong by themselves.
 */
function crossCheck(config: Partial<TrainConfig>, nameOfKey: (key: keyof TrainConfig) => string): string[] {
  const problems: string[] = []
  if (config.reportTo?.includes('webhook') === true && config.webhookUrl === undefined)
    problems.push(`${nameOfKey('reportTo')}: webhook needs ${nameOfKey('webhookUrl')}, which is not set`)
  if (config.valid === undefined) {
    const needed = `${nameOfKey('valid')}, which is not set`
    if (config.loadBestModelAtEnd === true) problems.push(`${nameOfKey('loadBestModelAtEnd')}: needs ${needed}`)
    if (config.evalStrategy !== undefined && config.evalStrategy !== 'no')
      problems.push(`${nameOfKey('evalStrategy')}: needs ${needed}`)
    if (config.evalSteps !== undefined && config.evalStrategy === undefined)
      problems.push(`${nameOfKey('evalSteps')}: needs ${needed}`)
    if (config.earlyStoppingPatience !== undefined)
      problems.push(`${nameOfKey('earlyStoppingPatience')}: needs ${needed}`)
    if (config.evalOnStart === true) problems.push(`${nameOfKey('evalOnStart')}: needs ${needed}`)
    if (config.samples !== undefined && config.samples > 0) problems.push(`${nameOfKey('samples')}: needs ${needed}`)
  } else if (config.evalStrategy === 'no') {
    const needed = `needs evaluations, but ${nameOfKey('evalStrategy')} is no`
    if (config.loadBestModelAtEnd === true) problems.push(`${nameOfKey('loadBestModelAtEnd')}: ${needed}`)
    if (config.earlyStoppingPatience !== undefined) problems.push(`${nameOfKey('earlyStoppingPatience')}: ${needed}`)
  }
  if (config.resume === true && config.resumeFrom !== undefined) {
    problems.push(`${nameOfKey('resume')}: resumes from the latest checkpoint, ${nameOfKey('resumeFrom')} from another`)
  }
  if (config.resumeAnyway === true && config.resume !== true && config.resumeFrom === undefined) {
    problems.push(`${nameOfKey('resumeAnyway')}: needs ${nameOfKey('resume')} or ${nameOfKey('resumeFrom')}`)
  }
  if (config.method === 'full') {
    if (config.adapter !== undefined) {
      problems.push(
        `${nameOfKey('adapter')}: has no meaning with ${nameOfKey('method')} full, which trains every weight`,
      )
    }
    return problems
  }
  if (config.adapter !== undefined) {
    for (const key of loraKeys.filter((one) => isSet(config, one))) {
      problems.push(
        `${nameOfKey(key)}: has no meaning with ${nameOfKey('adapter')}: training continues with the adapter's own shape`,
      )
    }
  }
  if (config.init === 'random') {
    problems.push(
      `${nameOfKey('init')}: random weights need ${nameOfKey('method')} full; an adapter needs a trained base`,
    )
  }
  return problems
}

/** Each value by itself: named once, known, and within its bounds. */
function collect(
  schema: z.ZodObject,
  sources: readonly Source[],
): { values: Record<string, unknown>; given: Map<string, Given>; problems: string[] } {
  const options = optionsOf(schema)
  const { given, problems } = gather(options, sources)
  const values: Record<string, unknown> = {}
  for (const option of options) {
    const field = schema.shape[option.key] as z.ZodType
    const entry = given.get(option.key)
    if (entry === undefined && option.required) {
      problems.push(`${nameOf(option.key, given, sources)}: missing. ${option.help}`)
      continue
    }
    const result = field.safeParse(entry?.value)
    if (result.success) {
      if (result.data !== undefined) values[option.key] = result.data
    } else if (entry !== undefined) {
      const path = result.error.issues[0]?.path ?? []
      const place = path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`)).join('')
      problems.push(
        `${entry.where}${place}: found ${option.secret ? 'something else' : show(at(entry.value, path))}, expected ${option.accepts}`,
      )
    }
  }
  return { values, given, problems }
}

/** The last value given for each option, names resolved; the same option twice in one source is a problem. */
function gather(
  options: readonly Option[],
  sources: readonly Source[],
): { given: Map<string, Given>; problems: string[] } {
  const given = new Map<string, Given>()
  const problems: string[] = []
  for (const { entries, spelling, text, file = false } of sources) {
    const seen = new Map<string, string>()
    for (const { name, value: written, where } of entries) {
      const found = resolveName(options, name, spelling)
      if ('problem' in found) {
        problems.push(`${where}: ${found.problem}`)
        continue
      }
      const { option, value } = resolveSwitch(options, found.option, written)
      // axolotl has the kind of training there. A folder of this name can be written ./lora.
      if (file && option.key === 'adapter' && (value === 'lora' || value === 'qlora')) {
        problems.push(
          `${where}: found "${value}", expected the folder of an adapter to continue with. Use "method": ${value}.`,
        )
        continue
      }
      const earlier = seen.get(option.key)
      // Flags may be repeated, the last one counts: scripts append to a command line.
      if (earlier !== undefined && spelling !== 'flag') problems.push(`${where}: given twice; already at ${earlier}`)
      seen.set(option.key, where)
      if (value === null || value === undefined) continue
      given.set(option.key, {
        option,
        where,
        value: resolveValue(option.key, text && typeof value === 'string' ? readText(option, value, file) : value),
      })
    }
  }
  return { given, problems }
}

function rawValues(schema: z.ZodObject, sources: readonly Source[]): Record<string, unknown> {
  return Object.fromEntries([...gather(optionsOf(schema), sources).given].map(([key, { value }]) => [key, value]))
}

/** The value a text stands for, by the kind of the option; a text that does not fit stays as it is, to be refused. */
function readText(option: Option, text: string, file: boolean): unknown {
  switch (option.kind) {
    case 'number':
      return readNumber(text)
    case 'list':
      return split(text)
    case 'numberList':
      return split(text).map(readNumber)
    case 'record': {
      // As transformers' command line takes it.
      if (text.startsWith('{')) return readJson(text)
      const pairs = split(text).map((pair) => {
        const cut = pair.lastIndexOf('=')
        return cut < 1 ? undefined : ([pair.slice(0, cut).trim(), readNumber(pair.slice(cut + 1).trim())] as const)
      })
      return pairs.includes(undefined) ? text : Object.fromEntries(pairs.filter((pair) => pair !== undefined))
    }
    case 'modules':
      // Module names hold letters, digits, underscores and dots; anything else is all-linear or a regular expression.
      return /^[\w.,\s]+$/.test(text) ? split(text) : text
    default:
      return file && option.path && /^~(?:\/|$)/.test(text) ? join(homedir(), text.slice(1)) : text
  }
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** The number a text stands for in decimal notation, or the text itself. */
function readNumber(text: string): number | string {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text
}

function split(text: string): string[] {
  return text.split(',').map((part) => part.trim())
}

function objectSource(input: unknown): Source {
  if (!isOptions(input)) {
    throw new LowrankError('config', `configuration: found ${show(input)}, expected an object of options`)
  }
  const entries = Object.entries(input).map(([name, value]) => ({ name, value, where: name }))
  return { entries, spelling: 'key', text: false }
}

/** How messages call an option: where it was given, or as the last source spells it. */
function nameOf(key: string, given: ReadonlyMap<string, Given>, sources: readonly Source[]): string {
  const where = given.get(key)?.where
  if (where !== undefined) return where
  if (sources.at(-1)?.spelling !== 'flag') return key
  return `--${snakeCase(key).replaceAll('_', '-')}`
}

function at(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, step) => (inner as Record<PropertyKey, unknown> | undefined)?.[step], value)
}

function raise(problems: readonly string[]): void {
  if (problems.length === 0) return
  const shown = problems.length === 1 ? problems[0] : `${problems.length} problems:\n  ${problems.join('\n  ')}`
  throw new LowrankError('config', `configuration: ${shown}`)
}
