import { closest } from '../../config/index.ts'
import { type ErrorCode, LowrankError } from '../../util/errors.ts'
import { anyIndex, anySegment, atTheEnd, indexAfter, matching, wholly } from './path-patterns.ts'

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
 * and, unless `allowUnmatched` (PEFT's way, for adapters made elsewhere), where a name, pattern or layer matches nothing.
 */
export function matchModules(
  config: LoraConfig,
  model: TargetModel,
  { code = 'config', allowUnmatched = false }: { code?: ErrorCode; allowUnmatched?: boolean } = {},
): string[] {
  const { targetModules, layersToTransform: layers, layersPattern } = config
  const named = typeof targetModules !== 'string'
  if (!named && (layers !== undefined || layersPattern !== undefined)) {
    throw new LowrankError(code, `layersToTransform and layersPattern need targetModules to be a list of names`, {
      hint: 'Put the layers into the regular expression: ".*\\.(0|1)\\.self_attn\\.q_proj".',
    })
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
  if (!allowUnmatched) checkAllMatch(config, model, matched)
  return matched
}

/** Ranks of the adapters of some modules: that of the first `rankPattern` that matches the path, else `r`. */
export function ranksOf(config: LoraConfig, paths: readonly string[]): ReadonlyMap<string, number> {
  return valuesOf('rankPattern', config.rankPattern, config.r, paths)
}

/**
 * Factors of B A x: alpha / r, or alpha / sqrt(r) with `useRslora` (Kalajdzievski 2023). Alpha is that of the first `alphaPattern` that
 * matches the path, else `loraAlpha`.
 */
export function scalesOf(config: LoraConfig, paths: readonly string[]): ReadonlyMap<string, number> {
  const ranks = ranksOf(config, paths)
  const alphas = valuesOf('alphaPattern', config.alphaPattern, config.loraAlpha, paths)
  const scaleOf = (path: string): number => {
    const r = ranks.get(path) ?? config.r
    return (alphas.get(path) ?? config.loraAlpha) / (config.useRslora ? Math.sqrt(r) : r)
  }
  return new Map(paths.map((path) => [path, scaleOf(path)]))
}

/** All paths at once, since there may be a pattern for each. */
function valuesOf(
  key: 'rankPattern' | 'alphaPattern',
  patterns: Readonly<Record<string, number>> = {},
  otherwise: number,
  paths: readonly string[],
): ReadonlyMap<string, number> {
  const values = new Map(paths.map((path) => [path, otherwise]))
  const left = new Set(paths)
  for (const [pattern, value] of Object.entries(patterns)) {
    for (const path of matching(key, pattern, atTheEnd, [...left], 'config').keys()) {
      values.set(path, value)
      left.delete(path)
    }
  }
  return values
}

/**
 * Checks that each part of a configuration has an effect, which PEFT does not: a pattern, an exclusion or a layer that matches nothing
 * is a mistake that would show in the result only.
 *
 * @throws LowrankError `config`: what matches nothing.
 */
function checkAllMatch(config: LoraConfig, model: TargetModel, adapted: readonly string[]): void {
  const refuse = (key: string, entry: unknown, what: string, names: readonly string[]): never => {
    const hint = `There are: ${[...new Set(names)].join(', ')}.`
    throw new LowrankError('config', `${key}: ${JSON.stringify(entry)} matches no ${what}`, { hint })
  }
  for (const key of ['rankPattern', 'alphaPattern'] as const) {
    for (const pattern of Object.keys(config[key] ?? {})) {
      if (matching(key, pattern, atTheEnd, adapted, 'config').size > 0) continue
      refuse(key, pattern, 'module that gets an adapter', adapted.map(lastName))
    }
  }
  const { excludeModules = [] } = config
  for (const entry of [excludeModules].flat()) {
    const excluded = exclusion(
      { ...config, modulesToSave: [], excludeModules: entry === excludeModules ? entry : [entry] },
      model.linears,
      'config',
    )
    if (!model.linears.some(excluded)) refuse('excludeModules', entry, 'linear layer', model.linears.map(lastName))
  }
  for (const layer of config.layersToTransform ?? []) {
    const inLayer = layerFilter({ ...config, layersToTransform: [layer] }, model.linears, 'config')
    const layers = model.linears.filter((path) => path !== model.head).map((path) => /\d+/.exec(path)?.[0] ?? '')
    if (!model.linears.some(inLayer)) refuse('layersToTransform', layer, 'layer', layers)
  }
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
    throw new LowrankError(code, `layersPattern needs layersToTransform`)
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
    `targetModules: "${target}" matches no linear layer of ${model.modelType} (has ${names.join(', ')})`,
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
  const also = narrowed.map(([key, value]) => `, with ${key} ${JSON.stringify(value)}`).join('')
  const names = [...new Set(model.linears.map(lastName))].join(', ')
  const message = `targetModules: ${JSON.stringify(targetModules)} matches no linear layer of ${model.modelType} (has ${names})${also}`
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
