import { basename, resolve } from 'node:path'
import type { Conversation, Message } from '../text/template/template.ts'
import type { CompletionEvent, TokenEvent } from './events.ts'

/** What an adapter is called that nobody named: the last part of its path, or of its name on the hub. */
export function adapterName(adapter: string): string {
  return basename(resolve(adapter))
}

/** What answers: a `Model`. */
export interface Answering<Options> {
  stream(
    prompt: Conversation,
    options?: Options & { adapter?: string | null },
    call?: { signal?: AbortSignal | undefined },
  ): AsyncGenerator<TokenEvent | CompletionEvent, void>
}

/** A conversation with a model, turn by turn. */
export class Chat<Options extends object = object> {
  /** What the model is told before anything is said. */
  system: string | undefined
  /** Which adapter answers, by its name; null: the base model. */
  adapter: string | null
  readonly #model: Answering<Options>
  readonly #options: Options
  #turns: Message[] = []

  constructor(
    model: Answering<Options>,
    options: Options,
    { system, adapter = null }: { readonly system?: string | undefined; readonly adapter?: string | null } = {},
  ) {
    this.#model = model
    this.#options = options
    this.system = system
    this.adapter = adapter
  }

  /** What was said, as `messages` of a training file. */
  get messages(): readonly Message[] {
    return this.system === undefined ? this.#turns : [{ role: 'system', content: this.system }, ...this.#turns]
  }

  /** What was said last by the user, if anything was. */
  get lastSaid(): string | undefined {
    const content = this.#turns.findLast(({ role }) => role === 'user')?.['content']
    return typeof content === 'string' ? content : undefined
  }

  /**
   * The answer to what is said, piece by piece. What came of it stays in the conversation, also where `signal` ends it early; where it fails,
   * nothing does.
   */
  async *say(text: string, call: { signal?: AbortSignal } = {}): AsyncGenerator<string, void> {
    const before = this.#turns
    this.#turns = [...before, { role: 'user', content: text }]
    let answer = ''
    try {
      for await (const piece of this.#answer(this.messages, this.adapter, call)) {
        answer += piece
        yield piece
      }
    } catch (error) {
      if (call.signal?.aborted !== true) {
        this.#turns = before
        throw error
      }
    }
    this.#turns = [...this.#turns, { role: 'assistant', content: answer }]
  }

  /** What each of some adapters (null: the base model) answers to what was said last. The conversation stays as it is. */
  async compare(adapters: readonly (string | null)[], call: { signal?: AbortSignal } = {}): Promise<string[]> {
    const last = this.#turns.findLastIndex(({ role }) => role === 'user')
    const asked = this.messages.slice(0, this.messages.length - this.#turns.length + last + 1)
    const answers: string[] = []
    for (const adapter of adapters) {
      let answer = ''
      for await (const piece of this.#answer(asked, adapter, call)) answer += piece
      answers.push(answer)
    }
    return answers
  }

  /** Forgets what was said. */
  reset(): void {
    this.#turns = []
  }

  async *#answer(
    messages: readonly Message[],
    adapter: string | null,
    call: { signal?: AbortSignal },
  ): AsyncGenerator<string, void> {
    for await (const event of this.#model.stream({ messages }, { ...this.#options, adapter }, call)) {
      if (event.type === 'token') yield event.text
    }
  }
}
