import type { GenerationSettings, Precision, QuantizationOptions } from '../config/index.ts'
import { samplingOptions, samplingText } from '../generate/defaults.ts'
import { Completions } from '../generate/completions.ts'
import type { GenerationEvent, GenerationResult } from '../generate/events.ts'
import { openGenerator } from '../generate/open.ts'
import { findData, fromHub } from '../hub/resolve.ts'
import { baseFor } from '../runs/adapter-base.ts'
import { type Prompt, readPrompts } from '../text/prompts.ts'
import { LowrankError } from '../util/errors.ts'
import { status, type TaskContext } from '../util/task.ts'

export interface GenerationConfig extends GenerationSettings, QuantizationOptions {
  readonly model: string
  readonly adapter?: string | undefined
  readonly threads?: number | undefined
  readonly precision: Precision
  readonly chatTemplate?: string | undefined
  readonly templateDate?: string | undefined
  /** One of the two: a text, or the files of several. */
  readonly prompt?: string | undefined
  readonly prompts?: string | undefined
  /** Whether a prompt is what a user says. */
  readonly chat: boolean
}

/**
 * Continues prompts.
 *
 * @throws LowrankError `data`: a prompt is none; `model`, `adapter`, `config`; `cancelled`: some have not ended.
 */
export async function* runGeneration(
  given: GenerationConfig,
  { cancelled }: TaskContext,
): AsyncGenerator<GenerationEvent, GenerationResult> {
  const { config } = yield* fromHub(given, { cancelled })
  const quantization = yield* baseFor(config)
  const prompts = await promptsOf(config, yield* sourcesOf(config, { cancelled }), cancelled)
  await using generator = await openGenerator({ ...config, quantization, cancelled })
  const { generation } = generator
  const adapter = config.adapter === undefined ? undefined : await generation.adapter(config.adapter)
  const sampling = samplingText(samplingOptions(config, generator.defaults))
  yield status(`weights: ${generation.held}; ${sampling}`)
  const begun = performance.now()
  const completions = new Completions(prompts)
  let tokens = 0
  for await (const token of generator.generate(prompts, { ...config, adapter }, cancelled)) {
    tokens++
    yield* completions.add(token)
  }
  if (cancelled()) throw new LowrankError('cancelled', 'the generation was cancelled')
  const seconds = (performance.now() - begun) / 1000
  return { completions: prompts.length, tokens, seconds, held: generation.held, sampling }
}

async function* sourcesOf({ prompts }: GenerationConfig, context: TaskContext) {
  return prompts === undefined ? [] : yield* findData(prompts, context)
}

async function promptsOf(
  { prompt, chat }: GenerationConfig,
  sources: Parameters<typeof readPrompts>[0],
  cancelled: () => boolean,
): Promise<readonly Prompt[]> {
  const found = prompt === undefined ? await readPrompts(sources, cancelled) : [prompt]
  if (!chat) return found
  return found.map((one) => (typeof one === 'string' ? { messages: [{ role: 'user', content: one }] } : one))
}
