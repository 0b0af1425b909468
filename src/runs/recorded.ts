import { z } from 'zod'
import { memoryChoiceSchema } from '../config/index.ts'

/**
 * Events as `metrics.jsonl` has them, as far as a report shows them. The file may be of another version or of another program: what is
 * not of the type that is shown is left out.
 */

const number = z.number().optional().catch(undefined)
const text = z.string().catch('')

const summarySchema = z.object({
  path: text,
  examples: number,
  tokens: number,
  labelTokens: number,
  truncated: number,
  dropped: number,
  skippedLines: number,
})

export const dataSchema = z.object({ train: summarySchema, valid: summarySchema.optional().catch(undefined) })

const item = z.object({ what: z.string(), bytes: z.number() })
const positive = z.int().positive()

/** A plan whole or not at all: a step that is computed again rests on it. */
export const planSchema = memoryChoiceSchema.extend({
  modelType: z.string(),
  parameters: positive,
  trainableParameters: positive,
  steps: positive,
  threads: positive,
  quantization: z.string().optional(),
  products: z.string().optional(),
  memory: z.object({ expected: z.number(), bound: z.number().optional(), items: z.array(item) }),
})

/** Versions or hashes by what they are of. */
export const textsSchema = z.record(z.string(), z.string()).readonly()

const origin = z.object({ id: z.string(), revision: z.string() }).optional()

/** Where model and adapter are from, where that is the hub. */
export const originsSchema = z
  .object({ model: origin, adapter: origin })
  .catch({})
  .transform(({ model, adapter }) => ({
    ...(model === undefined ? {} : { model }),
    ...(adapter === undefined ? {} : { adapter }),
  }))

export type RecordedData = z.output<typeof dataSchema>
export type RecordedPlan = z.output<typeof planSchema>
