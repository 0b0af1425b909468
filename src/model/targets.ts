import { type Context, createContext, Script } from 'node:vm'
import { closest } from '../config.ts'
import { type ErrorCode, LowrankError } from '../util/errors.ts'

/** What an adapter changes and how strongly: PEFT's `LoraConfig`, in camelCase, with its defaults filled in. */
export interface LoraConfig {
  readonly r: number
  readonly loraAlpha: number
  /** Names (suffixes of a module's path, whole segments), a regular expression for the whole path, or `all-linear`. */
  readonly targetModules: readonly string[] | string
  readonly excludeModules?: readonly string[] | string | undefined
  readonly loraDropout: number
  readonly bias: 'none' | 'all' | 'lora_only'
  readonly useRslora: boolean
  /** Ranks and alphas of single modules, by regular expression for the end of the path; the first that matches counts. */
  readonly rankPattern?: Readonly<Record<string, number>> | undefined
  readonly alphaPattern?: Readonly<Record<string, number>> | undefined
  /** Layers to adapt, from 0; those of targets that are names, all when left out or empty. */
  readonly layersToTransform?: readonly number[] | undefined
  /** What the list of layers is called in the path, where that is not the first name before a number. */
  readonly layersPattern?: readonly string[] | undefined
  readonly modulesToSave?: readonly string[] | undefined
}

/** The model whose modules are matched, as error messages and `all-linear` need it. */
export interface TargetModel {
  readonly modelType: string
  /** Paths of all linear layers, `model.layers.0.self_attn.q_proj`, the output head included. */
  readonly linears: readonly string[]
  /** Path of the output head. */
  readonly head: string
}

/**
 * Paths of the linear layers that get an adapter, in the model's order, by PEFT's rules. Throws where nothing matches,
 * and, unless `allowUnmatched` (PEFT's way, for adapters made elsewhere), where one of the names matches nothing.
 */
export function matchModules(
  config: LoraConfig,
  model: TargetModel,
  { code = 'config', allowUnmatched = false }: { code?: ErrorCode; allowUnmatched?: boolean } = {},
): string[] {
  const { targetModules, layersToTransform: layers, layersPattern } = config
  const named = typeof targetModules !== 'string'
  if (!named && (layers !== undefined || layersPattern !== undefined)) {
    throw new LowrankError(
      code,
      `lora.layersToTransform and lora.layersPattern need lora.targetModules to be a list of names`,
      {
        hint: 'Put the layers into the regular expression: ".*\\.(0|1)\\.self_attn\\.q_proj".',
      },
    )
  }
  const excluded = exclusion(config, model.linears, code)
  let found: (path: string) => boolean
  if (!named && targetModules.toLowerCase() === 'all-linear') {
    found = (path) => path !== model.head
  } else if (!named) {
    const matches = matching('targetModules', targetModules, wholly, model.linears, code)
    found = (path) => matches.has(path)
  } else {
    if (!allowUnmatched) for (const target of targetModules) checkTarget(target, model, code)
    const inLayers = layerFilter(config, model.linears, code)
    // PEFT lets a path that is given in full pass the choice of layers.
    found = (path) => targetModules.includes(path) || (targetModules.some((t) => isSuffix(t, path)) && inLayers(path))
  }
  const matched = model.linears.filter((path) => !excluded(path) && found(path))
  if (matched.length === 0) throw nothingMatched(config, model, code)
  return matched
}

/** Rank of a module's adapter: that of the first `rankPattern` that matches its path, else `r`. */
export function rankOf(config: LoraConfig, path: string): number {
  return patternValue('rankPattern', config.rankPattern, path) ?? config.r
}

/** Alpha of a module's adapter: that of the first `alphaPattern` that matches its path, else `loraAlpha`. */
export function alphaOf(config: LoraConfig, path: string): number {
  return patternValue('alphaPattern', config.alphaPattern, path) ?? config.loraAlpha
}

/** Factor of B A x: alpha / r, or alpha / sqrt(r) with `useRslora` (Kalajdzievski 2023). */
export function scaleOf(config: LoraConfig, path: string): number {
  const r = rankOf(config, path)
  return alphaOf(config, path) / (config.useRslora ? Math.sqrt(r) : r)
}

function patternValue(
  key: string,
  patterns: Readonly<Record<string, number>> | undefined,
  path: string,
): number | undefined {
  for (const [pattern, value] of Object.entries(patterns ?? {})) {
    if (matching(key, pattern, atTheEnd, [path], 'config').has(path)) return value
  }
  return undefined
}

/** What is left alone: `excludeModules`, and what lies in a module that is trained and saved in full. */
function exclusion(config: LoraConfig, paths: readonly string[], code: ErrorCode): (path: string) => boolean {
  const { excludeModules = [], modulesToSave = [] } = config
  const saved = modulesToSave.map((name) => matching('modulesToSave', name, anySegment, paths, code))
  const regular = typeof excludeModules === 'string' && matching('excludeModules', excludeModules, wholly, paths, code)
  return (path) =>
    saved.some((matches) => matches.has(path)) ||
    (regular ? regular.has(path) : (excludeModules as readonly string[]).some((t) => t === path || isSuffix(t, path)))
}

function layerFilter(config: LoraConfig, paths: readonly string[], code: ErrorCode): (path: string) => boolean {
  const { layersToTransform: layers, layersPattern: patterns = [] } = config
  if (layers === undefined && patterns.length > 0) {
    throw new LowrankError(code, `lora.layersPattern needs lora.layersToTransform`)
  }
  if (layers === undefined || layers.length === 0) return () => true
  // The first number after a name counts, not the last, which may be that of an expert.
  const found =
    patterns.length === 0
      ? [matching('layersPattern', '', anyIndex, paths, code)]
      : patterns.map((name) => matching('layersPattern', name, indexAfter, paths, code))
  return (path) => {
    const index = found.find((matches) => matches.has(path))?.get(path)
    return index !== undefined && layers.includes(Number(index))
  }
}

function checkTarget(target: string, model: TargetModel, code: ErrorCode): void {
  if (model.linears.some((path) => path === target || isSuffix(target, path))) return
  const names = [...new Set(model.linears.map(lastName))]
  const suggestion = closest(lastName(target), names)
  throw new LowrankError(
    code,
    `lora.targetModules: "${target}" matches no linear layer of ${model.modelType} (has ${names.join(', ')})`,
    {
      hint: suggestion === undefined ? undefined : `Did you mean "${suggestion}"?`,
    },
  )
}

function nothingMatched(config: LoraConfig, model: TargetModel, code: ErrorCode): LowrankError {
  const { targetModules, excludeModules, layersToTransform, modulesToSave } = config
  const narrowed = Object.entries({ excludeModules, layersToTransform, modulesToSave }).filter(
    ([, value]) => value?.length,
  )
  const also = narrowed.map(([key, value]) => `, with lora.${key} ${JSON.stringify(value)}`).join('')
  const names = [...new Set(model.linears.map(lastName))].join(', ')
  const message = `lora.targetModules: ${JSON.stringify(targetModules)} matches no linear layer of ${model.modelType} (has ${names})${also}`
  return new LowrankError(code, message, {
    hint:
      typeof targetModules === 'string'
        ? `A text is a regular expression for the whole path, such as ${model.linears[0] ?? ''}; a list holds names.`
        : undefined,
  })
}

function isSuffix(target: string, path: string): boolean {
  return path.endsWith(`.${target}`)
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1)
}

/* Where in a path an expression has to match; each is what PEFT wraps around it. */
const wholly = (body: string): string => `^(?:${body})$`
const atTheEnd = (body: string): string => `^(?:.*\\.)?(?:${body})$`
const anySegment = (body: string): string => `^(?:.*\\.)?(?:${body})(?:\\.|$)`
const anyIndex = (): string => '^.*?\\.[^.]*\\.(?<idx>\\d+)\\.'
const indexAfter = (body: string): string => `^(?:.*?\\.)?(?:${body})\\.(?<idx>\\d+)\\.`

/**
 * The paths that a Python regular expression matches, each with its group `idx`. Patterns come from files of others, and
 * one that backtracks without end would hang the process: they run under a time limit.
 */
function matching(
  key: string,
  pattern: string,
  place: (body: string) => string,
  paths: readonly string[],
  code: ErrorCode,
): Map<string, string> {
  try {
    const { body, flags } = fromPython(pattern)
    sandbox ??= createContext({})
    Object.assign(sandbox, { body: place(body), flags, paths: JSON.stringify(paths) })
    return new Map(JSON.parse(matcher.runInContext(sandbox, { timeout: timeLimit }) as string) as [string, string][])
  } catch (cause) {
    // An error of another context is no instance of this one's Error.
    const { message } = cause as { message: string }
    throw new LowrankError(code, `lora.${key}: ${JSON.stringify(pattern)} cannot be used (${message})`, { cause })
  }
}

/** Milliseconds for one expression and all paths; a sound one takes less than one. */
const timeLimit = 1000

let sandbox: Context | undefined

const matcher = new Script(`
  {
  const expression = new RegExp(body, flags)
  const matches = JSON.parse(paths).map((path) => [path, expression.exec(path)]).filter(([, match]) => match)
  JSON.stringify(matches.map(([path, match]) => [path, match.groups?.idx ?? '']))
}`)

/** Python and JavaScript spell flags at the start, named groups, absolute anchors and open counts differently. */
function fromPython(pattern: string): { body: string; flags: string } {
  const flags = /^\(\?([ims]+)\)/.exec(pattern)
  const body = pattern
    .slice(flags?.[0].length ?? 0)
    .replace(/\\[\s\S]|\(\?P<|\(\?P=(\w+)\)|\{,(?=\d)/g, (part, name: string | undefined) =>
      name === undefined ? (respelled[part] ?? part) : `\\k<${name}>`,
    )
  return { body, flags: [...new Set(flags?.[1] ?? '')].join('') }
}

const respelled: Readonly<Record<string, string>> = { '(?P<': '(?<', '{,': '{0,', '\\A': '^', '\\Z': '$' }
