import { randomInt } from 'node:crypto'
import type { GenerationSettings } from '../config/index.ts'
import type { LoadedAdapter } from '../engine/cached/adapters.ts'
import { type Generation, type GenerationOptions, openGeneration } from '../session/generation.ts'
import { chooseTemplate } from '../text/template/choose.ts'
import { type ChatTemplate, TemplateProblem } from '../text/template/template.ts'
import { TurnFinder } from '../text/template/turns.ts'
import { tokenizePrompts } from '../text/pairs.ts'
import type { Prompt } from '../text/prompts.ts'
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import { LowrankError } from '../util/errors.ts'
import { type ModelDefaults, modelDefaults, samplingOptions } from './defaults.ts'
import { embedded, type EmbeddedText } from './embedder.ts'
import { type GeneratedToken, Generator, type GenerateRequest } from './generator.ts'

export interface OpenGeneratorOptions extends GenerationOptions {
  /** An adapter whose template conversations are written with, where it has one of its own. */
  readonly adapter?: string | undefined
  readonly chatTemplate?: string | undefined
  /** The day that a template writes, if it writes one; today by default. */
  readonly templateDate?: string | undefined
  readonly cancelled?: (() => boolean) | undefined
}

/** How a prompt is continued. */
export type Asked = Partial<Omit<GenerationSettings, 'maxNewTokens'>> & {
  readonly maxNewTokens: number
  readonly adapter?: LoadedAdapter | undefined
}

/**
 * Opens a model with its tokenizer and template, ready to generate.
 *
 * @throws LowrankError `model`, `adapter`, `config`: what was refused, and why; `cancelled`.
 */
export async function openGenerator(options: OpenGeneratorOptions): Promise<TextGenerator> {
  const { model, adapter, cancelled = () => false } = options
  const tokenizer = await loadTokenizer(model, { cancelled })
  try {
    const template = await chooseTemplate({ model, adapter }, options, tokenizer)
    const defaults = await modelDefaults(model)
    const generation = await openGeneration(options)
    return new TextGenerator({ model, tokenizer, template, defaults, generation })
  } catch (error) {
    tokenizer.close()
    throw error
  }
}

interface Parts {
  readonly model: string
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate | undefined
  readonly defaults: ModelDefaults
  readonly generation: Generation
}

/** A model that continues texts. */
export class TextGenerator {
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate | undefined
  readonly defaults: ModelDefaults
  readonly generation: Generation
  readonly #model: string
  readonly #generator: Generator
  readonly #endIds: ReadonlySet<number>

  /** Use `openGenerator`. */
  constructor({ model, tokenizer, template, defaults, generation }: Parts) {
    this.#model = model
    this.tokenizer = tokenizer
    this.template = template
    this.defaults = defaults
    this.generation = generation
    this.#generator = new Generator(generation.decoder, tokenizer)
    const turns = template && new TurnFinder(template, tokenizer.addedTokens.keys())
    const endOfTurn = turns?.endOfTurn === undefined ? undefined : tokenizer.addedTokens.get(turns.endOfTurn)
    const { vocabSize } = generation.config
    const ends = [tokenizer.eosId, ...defaults.endIds, ...(endOfTurn === undefined ? [] : [endOfTurn])]
    this.#endIds = new Set(ends.filter((id) => id < vocabSize))
  }

  /** The text of a prompt: a conversation with what comes before the answer. */
  textOf(prompt: Prompt): string {
    if (typeof prompt === 'string') return prompt
    if (this.template === undefined) {
      throw new LowrankError('config', `${this.#model} has no chat template, so a conversation cannot be written`, {
        hint: 'Name one (--chat-template chatml, or a file), or give the prompt as a text.',
      })
    }
    try {
      return this.template.render(prompt, { prompt: true }).text
    } catch (error) {
      if (error instanceof TemplateProblem) throw new LowrankError('config', error.message)
      throw error
    }
  }

  /** Continues prompts; those of a batch share the seed, and differ in their place. */
  async *generate(
    prompts: readonly Prompt[],
    asked: Asked | ((index: number) => Asked),
    cancelled: () => boolean = () => false,
  ): AsyncGenerator<GeneratedToken, void> {
    const requests: GenerateRequest[] = []
    const other = randomInt(2 ** 31)
    for (const [i, prompt] of prompts.entries()) {
      const { seed = other, ...rest } = typeof asked === 'function' ? asked(i) : asked
      const name = prompts.length === 1 ? 'the prompt' : `prompt ${i + 1}`
      requests.push(await this.#request(prompt, { ...rest, seed }, name))
    }
    yield* this.#generator.generate(requests, cancelled)
  }

  async #request(prompt: Prompt, asked: Asked & { readonly seed: number }, name: string): Promise<GenerateRequest> {
    const { adapter, maxNewTokens, stop, seed, logprobs } = asked
    const ids = await this.#ids(prompt)
    const { maxPositionEmbeddings: most } = this.generation.config
    if (ids.length >= most) {
      throw new LowrankError(
        'config',
        `${name} has ${ids.length} tokens, but ${this.#model} is made for ${most}, with what follows`,
        {
          hint: 'Shorten it.',
        },
      )
    }
    this.#checkIds(ids, name)
    return {
      ids,
      adapter,
      maxNewTokens: Math.min(maxNewTokens, most - ids.length),
      sampling: samplingOptions(asked, this.defaults),
      seed,
      endIds: this.#endIds,
      stops: stop ?? [],
      logprobs,
    }
  }

  /**
   * What texts mean to the model, as they are computed: see `embedded`.
   *
   * @throws LowrankError `config`: products are not exact; a text is too long.
   */
  async *embed(
    texts: readonly string[],
    adapter: LoadedAdapter | undefined,
    cancelled: () => boolean = () => false,
  ): AsyncGenerator<EmbeddedText, void> {
    const { config, decoder, precision } = this.generation
    if (precision !== 'exact') {
      throw new LowrankError(
        'config',
        `embed: the model was loaded with precision "${precision}", and texts are embedded by exact products only`,
        { hint: 'Load it with precision "exact", the default.' },
      )
    }
    const most = config.maxPositionEmbeddings
    const all = await tokenizePrompts(this.tokenizer, texts)
    for (const [i, ids] of all.entries()) {
      const name = `text ${i + 1}`
      if (ids.length > most) {
        throw new LowrankError('config', `${name} has ${ids.length} tokens, but ${this.#model} is made for ${most}`, {
          hint: 'Cut it into passages.',
        })
      }
      this.#checkIds(ids, name)
    }
    yield* embedded(decoder, all, { adapter, cancelled })
  }

  #checkIds(ids: Int32Array, name: string): void {
    const { vocabSize } = this.generation.config
    const beyond = ids.find((id) => id >= vocabSize)
    if (beyond === undefined) return
    throw new LowrankError(
      'config',
      `${name} has the token ${beyond}, beyond the model's embedding of ${vocabSize} rows`,
    )
  }

  async #ids(prompt: Prompt): Promise<Int32Array> {
    if (typeof prompt === 'string') return (await tokenizePrompts(this.tokenizer, [prompt]))[0]!
    // A template writes all special tokens itself.
    const [ids = new Int32Array()] = await this.tokenizer.encode([this.textOf(prompt)])
    // A template may write nothing; a text without tokens is taken to begin behind an end, too.
    return ids.length > 0 ? ids : Int32Array.of(this.tokenizer.eosId)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.tokenizer.close()
    await this.generation.close()
  }
}
