import { LowrankError } from '../util/errors.ts'
import { markFrom } from './example.ts'
import { tokenizeRows } from './pairs.ts'
import type { Sample } from './shapes/index.ts'
import type { ChatSample, PairSample, Problem, TextSample } from './shapes/sample.ts'
import { type ChatTemplate, type Message, TemplateProblem } from './template/template.ts'
import { type LearnedTurns, type MarkedText, TurnFinder } from './template/turns.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface EncodeOptions {
  /** What writes conversations; undefined where the model has none and none is named. */
  readonly template?: ChatTemplate | undefined
  /** Whether a prompt and its completion are a question and its answer in a conversation. */
  readonly chat?: boolean | undefined
  /** Whether everything is learned, and not only what is answered. */
  readonly trainOnInputs?: boolean | undefined
  readonly turns?: LearnedTurns | undefined
}

/** A sample as marked ids (`example.ts`), not cut; or why it has none. */
export type Encoded = Int32Array | Problem

/** Turns samples into tokens, the same way for training, evaluation and whatever else reads data. */
export class SampleEncoder {
  readonly #tokenizer: Tokenizer
  readonly #options: EncodeOptions
  readonly #turns: TurnFinder | undefined

  constructor(tokenizer: Tokenizer, options: EncodeOptions) {
    this.#tokenizer = tokenizer
    this.#options = options
    this.#turns = options.template && new TurnFinder(options.template, tokenizer.addedTokens.keys())
  }

  /** The id of the token that ends a turn of a conversation, if there is one. */
  get endOfTurnId(): number | undefined {
    const token = this.#turns?.endOfTurn
    return token === undefined ? undefined : this.#tokenizer.addedTokens.get(token)
  }

  /**
   * @throws LowrankError `data`: conversations without a template; `model`: the tokenizer cannot be used; `cancelled`.
   */
  async encode(samples: readonly Sample[]): Promise<Encoded[]> {
    const { chat = false, trainOnInputs = false } = this.#options
    const found = new Array<Encoded>(samples.length)
    const [pairs, texts, chats]: [Placed<PairSample>[], Placed<TextSample>[], Placed<ChatSample>[]] = [[], [], []]
    for (const [at, sample] of samples.entries()) {
      if (sample.kind === 'text') texts.push({ at, sample })
      else if (sample.kind === 'pair' && !chat) pairs.push({ at, sample })
      else chats.push({ at, sample: sample.kind === 'chat' ? sample : asChat(sample) })
    }
    const marked: Placed<MarkedText>[] = []
    for (const [i, written] of this.#writeAll(chats.map(({ sample }) => sample)).entries()) {
      const { at } = chats[i]!
      if ('problem' in written) found[at] = written
      else marked.push({ at, sample: written })
    }
    const rows = await tokenizeRows(this.#tokenizer, [
      ...pairs.map(({ sample }) => sample),
      ...texts.map(({ sample: { text } }) => ({ prompt: '', completion: text })),
    ])
    for (const [i, { at }] of [...pairs, ...texts].entries()) {
      const { ids, border } = rows[i]!
      const all = trainOnInputs || i >= pairs.length
      found[at] = markFrom(ids, all ? 0 : border)
    }
    const ids = await this.#tokenizer.encodeMarked(marked.map(({ sample }) => sample))
    for (const [i, { at }] of marked.entries()) found[at] = ids[i]!
    return found
  }

  #writeAll(chats: readonly ChatSample[]): (MarkedText | Problem)[] {
    if (chats.length === 0) return []
    const { template } = this.#options
    if (template === undefined) throw noTemplate()
    return template.together(() => chats.map((one) => this.#write(one)))
  }

  /** A conversation as the template writes it. */
  #write(sample: ChatSample): MarkedText | Problem {
    const { turns = 'all', trainOnInputs = false, template } = this.#options
    if (template === undefined || this.#turns === undefined) throw noTemplate()
    let refused: TemplateProblem | undefined
    for (const messages of variants(sample.messages, template)) {
      const { tools, unlearned } = sample
      try {
        const found = this.#turns.mark({ messages, tools }, turns, (_, index) => unlearned?.has(index) !== true)
        return trainOnInputs ? { text: found.text, spans: [{ start: 0, end: found.text.length }] } : found
      } catch (error) {
        if (!(error instanceof TemplateProblem)) throw error
        refused ??= error
      }
    }
    const hint =
      'Learn only the last turn (--last-turn-only) or everything (--train-on-inputs), leave these records out (--skip-bad-lines), or name another template (--chat-template).'
    return { problem: refused?.message ?? 'the template cannot write it', hint }
  }
}

interface Placed<T> {
  readonly at: number
  readonly sample: T
}

/** A prompt and its completion as a question and its answer. */
export function asChat({ prompt, completion }: PairSample): ChatSample {
  const messages = [
    { role: 'user', content: prompt },
    { role: 'assistant', content: completion },
  ]
  return { kind: 'chat', messages }
}

function noTemplate(): LowrankError {
  return new LowrankError('data', 'these are conversations, and the model has no chat template to write them with', {
    hint: 'Name one: --chat-template chatml, llama-3, gemma, mistral, zephyr or alpaca, or a file. A model that was trained on conversations has its own; take that.',
  })
}

/**
 * The messages, and the same in the other ways in which templates want them: the arguments of calls as JSON text, an empty text where there
 * is nothing but calls.
 */
function variants(given: readonly Message[], template: ChatTemplate): Message[][] {
  // What OpenAI calls the developer is the system to all others.
  const knowsDeveloper = template.source.includes('developer')
  const messages = given.map((one) => (one.role === 'developer' && !knowsDeveloper ? { ...one, role: 'system' } : one))
  if (!messages.some((one) => 'tool_calls' in one)) return [messages]
  const asText = messages.map((one) =>
    Array.isArray(one['tool_calls']) ? { ...one, tool_calls: one['tool_calls'].map(withTextArguments) } : one,
  )
  const filled = (all: readonly Message[]): Message[] => all.map((one) => ({ ...one, content: one['content'] ?? '' }))
  return [messages, asText, filled(messages), filled(asText)]
}

function withTextArguments(call: { readonly function: { readonly arguments: unknown } }): unknown {
  return { ...call, function: { ...call.function, arguments: JSON.stringify(call.function.arguments) } }
}

/** Where the last part begins that is learned: what comes before it is what it is an answer to. */
export function lastAnswer(labelMask: Uint8Array): number {
  const last = labelMask.lastIndexOf(1)
  const before = last === -1 ? -1 : labelMask.lastIndexOf(0, last)
  return before + 1
}
