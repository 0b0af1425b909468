import type { Prompt } from '../text/prompts.ts'
import type { CompletionEvent, TokenEvent } from './events.ts'
import type { GeneratedToken } from './generator.ts'

/** Texts that grow token by token, given out whole in the order of their prompts. */
export class Completions {
  readonly #prompts: readonly Prompt[]
  readonly #open = new Map<number, { text: string; readonly tokens: GeneratedToken[] }>()
  readonly #ended = new Map<number, CompletionEvent>()
  #next = 0

  constructor(prompts: readonly Prompt[]) {
    this.#prompts = prompts
  }

  /** What there is to tell after a token. */
  *add(token: GeneratedToken): Generator<TokenEvent | CompletionEvent> {
    const { index, finish } = token
    if (token.text !== '') yield { type: 'token', index, text: token.text }
    const found = this.#open.get(index) ?? { text: '', tokens: [] }
    found.text += token.text
    found.tokens.push(token)
    this.#open.set(index, found)
    if (finish === undefined) return
    this.#open.delete(index)
    const { text, tokens } = found
    const logprobs = tokens.flatMap(({ id, logprob, top = [] }) =>
      logprob === undefined ? [] : [{ id, logprob, top }],
    )
    const prompt = this.#prompts[index] ?? ''
    const completion = { type: 'completion', index, prompt, text, finishReason: finish, tokens: tokens.length } as const
    this.#ended.set(index, logprobs.length === 0 ? completion : { ...completion, logprobs })
    for (;;) {
      const next = this.#ended.get(this.#next)
      if (next === undefined) return
      this.#ended.delete(this.#next++)
      yield next
    }
  }
}
