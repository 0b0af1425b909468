import { z } from 'zod'
import type { JsonObject } from '../../formats/json.ts'
import { LowrankError } from '../../util/errors.ts'
import type { LoraConfig } from './targets.ts'

/** The base model of an adapter, for PEFT's loader. */
export interface BaseModel {
  /** Name or path. */
  readonly name: string
  /** Branch, tag or commit of one on the hub; undefined: what is current. */
  readonly revision?: string | undefined
}

/**
 * Reads the object in an `adapter_config.json`. Unknown keys are passed over, since each version of PEFT adds some;
 * what changes the meaning of the tensors and is not supported is refused by name. `path` is for the messages.
 */
export function parseAdapterConfig(
  json: JsonObject,
  path: string,
): { config: LoraConfig; baseModel: string | undefined } {
  const refuse = (key: string, hint?: string): never => {
    const value = (JSON.stringify(json[key]) ?? 'missing').slice(0, 80)
    throw new LowrankError('adapter', `${path}: "${key}" is ${value}, which is not supported`, { hint })
  }
  if ('fine_tune_type' in json || 'lora_parameters' in json) {
    throw new LowrankError('adapter', `${path} is an adapter of mlx-lm, whose weights have other names and shapes`, {
      hint: 'Convert it to the format of PEFT first.',
    })
  }
  if (json['peft_type'] !== 'LORA') refuse('peft_type', 'Only LoRA adapters can be used.')
  for (const key of unsupported) if (isSet(json[key])) refuse(key)
  if (!initsThatKeepTheBase.has(json['init_lora_weights'] ?? true)) {
    refuse(
      'init_lora_weights',
      'It changes the base weights. Convert the adapter to plain LoRA when saving it in PEFT.',
    )
  }
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const { path: keys, message } = parsed.error.issues[0]!
    throw new LowrankError('adapter', `${path}: "${keys.join('.')}": ${message}`)
  }
  const found = parsed.data
  const config: LoraConfig = {
    r: found.r ?? 8,
    loraAlpha: found.lora_alpha ?? 8,
    // PEFT then takes what it knows the family by.
    targetModules: found.target_modules ?? ['q_proj', 'v_proj'],
    excludeModules: found.exclude_modules ?? undefined,
    loraDropout: found.lora_dropout ?? 0,
    bias: found.bias ?? 'none',
    useRslora: found.use_rslora ?? false,
    rankPattern: found.rank_pattern ?? undefined,
    alphaPattern: found.alpha_pattern ?? undefined,
    layersToTransform:
      typeof found.layers_to_transform === 'number'
        ? [found.layers_to_transform]
        : (found.layers_to_transform ?? undefined),
    layersPattern: found.layers_pattern?.length ? [found.layers_pattern].flat() : undefined,
    modulesToSave: found.modules_to_save ?? undefined,
  }
  return { config, baseModel: found.base_model_name_or_path ?? undefined }
}

/**
 * The text of an `adapter_config.json`: the keys that every version of PEFT since 0.8 knows, and newer ones only where they
 * are used, because older versions refuse what they do not know. `adapted` and `saved` are the paths of the modules that are adapted, and
 * of those that are trained and saved in full.
 */
export function formatAdapterConfig(
  given: LoraConfig,
  base: BaseModel,
  { adapted, saved = [] }: { readonly adapted: readonly string[]; readonly saved?: readonly string[] },
): string {
  const config = adapted.some(isPartOfMore) ? exactly(given, adapted, saved) : given
  const { targetModules, excludeModules } = config
  // As PEFT does: a loader need not know what all-linear stands for.
  const all = typeof targetModules === 'string' && targetModules.toLowerCase() === 'all-linear'
  const names = all ? adapted.map((path) => path.slice(path.lastIndexOf('.') + 1)) : targetModules
  const json: Record<string, unknown> = {
    alpha_pattern: config.alphaPattern ?? {},
    auto_mapping: null,
    base_model_name_or_path: base.name,
    bias: config.bias,
    ...(excludeModules?.length ? { exclude_modules: excludeModules } : {}),
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: config.layersPattern ?? null,
    layers_to_transform: config.layersToTransform ?? null,
    lora_alpha: config.loraAlpha,
    lora_dropout: config.loraDropout,
    modules_to_save: config.modulesToSave ?? null,
    peft_type: 'LORA',
    r: config.r,
    rank_pattern: config.rankPattern ?? {},
    revision: base.revision ?? null,
    target_modules: typeof names === 'string' ? names : [...new Set(names)].sort(),
    task_type: 'CAUSAL_LM',
    use_rslora: config.useRslora,
  }
  return `${JSON.stringify(json, null, 2)}\n`
}

/** Whether a module is of a decoder in a larger model, whose other parts have modules of the same names. */
function isPartOfMore(path: string): boolean {
  return path.startsWith(trunkOfMore)
}

const trunkOfMore = 'model.language_model.'

/** The same adapter by the whole paths of its modules: names would have PEFT adapt what sees images too. */
function exactly(config: LoraConfig, adapted: readonly string[], saved: readonly string[]): LoraConfig {
  return {
    ...config,
    targetModules: patternOf(adapted),
    // They are in the pattern, beside which PEFT takes no choice of layers.
    excludeModules: undefined,
    layersToTransform: undefined,
    layersPattern: undefined,
    modulesToSave: saved.length > 0 ? saved : undefined,
  }
}

/** A regular expression, for the whole of a path, that matches these paths and no others; layers with the same modules share a part. */
function patternOf(paths: readonly string[]): string {
  const modules = new Map<string, string[]>()
  for (const path of paths) {
    const [, layer, module] = /\.layers\.(\d+)\.(.*)$/.exec(path) ?? []
    if (layer !== undefined && module !== undefined) modules.set(layer, [...(modules.get(layer) ?? []), module])
  }
  const layers = new Map<string, string[]>()
  for (const [layer, found] of modules) layers.set(found.join('|'), [...(layers.get(found.join('|')) ?? []), layer])
  const parts = [...layers].map(([found, those]) => `${trunkOfMore}layers.(${those.join('|')}).(${found})`)
  return [...parts, ...paths.filter((path) => !isPartOfMore(path))].join('|').replaceAll('.', '\\.')
}

/**
 * Keys that change what the tensors mean; each is refused unless it is null, false or empty. `fan_in_fan_out` is about layers that store
 * W [in, out], which no family here has: of a linear layer PEFT takes it for false.
 */
const unsupported = [
  'use_dora',
  'lora_bias',
  'layer_replication',
  'trainable_token_indices',
  'target_parameters',
  'alora_invocation_tokens',
  'ensure_weight_tying',
  'corda_config',
  'lora_ga_config',
  'use_qalora',
  'use_bdlora',
  'arrow_config',
  'kasa_config',
  'monteclora_config',
  'velora_config',
  'megatron_config',
]

/** The others (pissa, olora, corda, loftq, ...) take something out of the base weights, which a loader has to repeat. */
const initsThatKeepTheBase: ReadonlySet<unknown> = new Set([true, false, 'gaussian', 'orthogonal', 'eva'])

const text = z.string().max(4096)
const names = z.array(text).max(65536)
const namesOrPattern = z.union([text, names], 'a list of names or one text is expected')
const rank = z.int().min(1).max(65536)
const alpha = z.number().min(-1e9).max(1e9)
const layer = z.int().min(0).max(65535)

const schema = z.object({
  base_model_name_or_path: text.nullish(),
  r: rank.nullish(),
  lora_alpha: alpha.nullish(),
  target_modules: namesOrPattern.nullish(),
  exclude_modules: namesOrPattern.nullish(),
  lora_dropout: z.number().min(0).lt(1).nullish(),
  bias: z.enum(['none', 'all', 'lora_only']).nullish(),
  use_rslora: z.boolean().nullish(),
  rank_pattern: z.record(text, rank).nullish(),
  alpha_pattern: z.record(text, alpha).nullish(),
  layers_to_transform: z.union([layer, z.array(layer).max(65536)], 'a layer or a list of layers is expected').nullish(),
  layers_pattern: namesOrPattern.nullish(),
  modules_to_save: names.nullish(),
})

function isSet(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return false
  return typeof value !== 'object' || Object.keys(value).length > 0
}
