import { z } from 'zod'
import type { GenerationSettings } from '../config/index.ts'
import type { JsonObject } from '../formats/json.ts'
import { openModelFiles } from '../formats/model-files.ts'
import { LowrankError } from '../util/errors.ts'
import type { SamplingOptions } from './processors.ts'

const ids = z.union([z.int().min(0), z.array(z.int().min(0))]).nullish()

/** What is read of generation_config.json. */
const generationConfig = z.object({
  do_sample: z.boolean().nullish(),
  temperature: z.number().min(0).nullish(),
  top_k: z.int().min(0).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().gt(0).nullish(),
  eos_token_id: ids,
})

/** What a model says of how it is to generate. */
export interface ModelDefaults {
  readonly sampling: Partial<SamplingOptions>
  /** Ids that end a text, by generation_config.json and config.json. */
  readonly endIds: readonly number[]
}

/**
 * Reads generation_config.json, and the end tokens of config.json.
 *
 * @throws LowrankError `model`: a value is none that transformers has.
 */
export async function modelDefaults(model: string): Promise<ModelDefaults> {
  const files = await openModelFiles(model)
  const read = async <T>(name: string, schema: z.ZodType<T>): Promise<T | undefined> => {
    if (!files.names.includes(name)) return undefined
    const json: JsonObject = await files.json(name)
    const { data, error } = schema.safeParse(json)
    if (error === undefined) return data
    const [issue] = error.issues
    throw new LowrankError('model', `${files.where(name)}: "${issue?.path.join('.')}": ${issue?.message}`)
  }
  const own = await read('generation_config.json', generationConfig)
  const config = await read('config.json', z.object({ eos_token_id: ids }))
  return {
    sampling: {
      ...(typeof own?.do_sample === 'boolean' && { doSample: own.do_sample }),
      temperature: own?.temperature ?? undefined,
      topK: own?.top_k ?? undefined,
      topP: own?.top_p ?? undefined,
      minP: own?.min_p ?? undefined,
      repetitionPenalty: own?.repetition_penalty ?? undefined,
    },
    endIds: [own?.eos_token_id, config?.eos_token_id].flatMap((entry) => entry ?? []),
  }
}

/** How tokens are taken: as asked for, else as the model says, else by the defaults of transformers. */
export function samplingOptions(settings: Partial<GenerationSettings>, { sampling }: ModelDefaults): SamplingOptions {
  const { temperature, topK, topP, minP, presencePenalty, frequencyPenalty, logitBias } = settings
  const asked = [temperature, topK, topP, minP].some((value) => value !== undefined)
  const draws = settings.doSample ?? (asked || (sampling.doSample ?? false))
  const heat = temperature ?? sampling.temperature ?? 1
  return {
    doSample: draws && heat > 0,
    temperature: heat,
    topK: topK ?? sampling.topK ?? 50,
    topP: topP ?? sampling.topP ?? 1,
    minP: minP ?? sampling.minP ?? 0,
    repetitionPenalty: settings.repetitionPenalty ?? sampling.repetitionPenalty ?? 1,
    presencePenalty,
    frequencyPenalty,
    logitBias: logitBias && new Map(Object.entries(logitBias).map(([id, value]) => [Number(id), value])),
  }
}

/** How tokens are taken, in words. */
export function samplingText({ doSample, temperature, topK, topP, minP, repetitionPenalty }: SamplingOptions): string {
  const penalty = repetitionPenalty === 1 ? '' : `, repetition penalty ${repetitionPenalty}`
  if (!doSample) return `greedy${penalty}`
  const parts = [
    `temperature ${temperature}`,
    topK === 0 ? undefined : `top-k ${topK}`,
    topP === 1 ? undefined : `top-p ${topP}`,
    minP === 0 ? undefined : `min-p ${minP}`,
  ]
  return `${parts.filter((part) => part !== undefined).join(', ')}${penalty}`
}
