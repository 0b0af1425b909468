import { homedir } from 'node:os'
import { join } from 'node:path'
import type { z } from 'zod'
import { LowrankError } from '../util/errors.ts'
import { resolveName, resolveSwitch, resolveValue, type Spelling } from './names.ts'
import { optionsOf, snakeCase, type Option } from './options.ts'
import { isOptions, show } from './show.ts'

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
  /** The file it is, if it is one: `~` is the home folder in its paths, as shells have it in those of flags. */
  readonly file?: string
}

interface Given {
  readonly option: Option
  readonly value: unknown
  readonly where: string
}

/** What a schema cannot say of its options, since it is about several of them. */
export interface Rules<C> {
  /** Contradictions, a line each; `values` lacks the options that are wrong by themselves. `nameOf` gives an option's name as the user has it. */
  check(values: Partial<C>, nameOf: (key: keyof C & string) => string): string[]
  /** Decides what the options leave open, once there is no problem. */
  complete?(values: Partial<C>): void
}

/** The options of a call: read once, where they come in, and complete from there on. */
export interface OptionSet<S extends z.ZodObject, C> {
  readonly schema: S
  /** The options as flags, help and messages need them. */
  list(): readonly Option[]
  /**
   * Checks an object of options and fills in the defaults. Names may be camelCase or snake_case; `null` means unset.
   *
   * @throws LowrankError `config`, naming every problem at once: the option, the value found, what is accepted.
   */
  parse(input: unknown): C
  /** The same for options from several places, the later winning over the earlier. */
  read(sources: readonly Source[]): C
}

/** Options by their schema. The second type says what is decided beyond it, by `rules.complete`. */
export function optionSet<S extends z.ZodObject, C = z.output<S>>(
  schema: S,
  rules?: Rules<NoInfer<C>>,
): OptionSet<S, C> {
  let options: readonly Option[] | undefined
  const list = (): readonly Option[] => (options ??= optionsOf(schema))
  const read = (sources: readonly Source[]): C => {
    const { values, given, problems } = collect(schema, list(), sources)
    const config = values as Partial<C>
    problems.push(...(rules?.check(config, (key) => nameOf(key, given, sources)) ?? []))
    raise(problems)
    rules?.complete?.(config)
    return config as C
  }
  return { schema, list, read, parse: (input) => read([objectSource(input)]) }
}

/** Each value by itself: named once, known, and within its bounds. */
function collect(
  schema: z.ZodObject,
  options: readonly Option[],
  sources: readonly Source[],
): { values: Record<string, unknown>; given: Map<string, Given>; problems: string[] } {
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
  for (const { entries, spelling, text, file: path } of sources) {
    const file = path !== undefined
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
      const own = resolveValue(option.key, text && typeof value === 'string' ? readText(option, value, file) : value)
      // Of the same command line, before this one.
      const before = option.kind === 'repeated' && earlier !== undefined ? (given.get(option.key)?.value ?? []) : []
      given.set(option.key, { option, where, value: option.kind === 'repeated' ? [before, own].flat() : own })
    }
  }
  return { given, problems }
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
