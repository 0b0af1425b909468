import { type ChatTemplate, type Conversation, type Message, type Span, TemplateProblem } from './template.ts'

/** Which turns of the assistant are learned. */
export type LearnedTurns = 'all' | 'last'

/** A conversation as text, and what of it is learned. */
export interface MarkedText {
  readonly text: string
  readonly spans: readonly Span[]
}

/** Whether a message is to be learned; those of the assistant are, unless its `weight` is 0. */
type IsLearned = (message: Message, index: number) => boolean

/**
 * Finds what the assistant says in conversations that a template writes, each turn with the token that ends it. By the marks of the template
 * where it has some, else by writing the conversation up to each turn: what a turn adds to that must stand in the whole as well.
 */
export class TurnFinder {
  readonly #template: ChatTemplate
  /** Tokens of their own, the longest first. */
  readonly #added: readonly string[]
  #end: { readonly token: string | undefined } | undefined

  constructor(template: ChatTemplate, addedTokens: Iterable<string>) {
    this.#template = template
    this.#added = [...addedTokens].filter((token) => token !== '').toSorted((a, b) => b.length - a.length)
  }

  /**
   * Writes a conversation, and marks what is learned of it.
   *
   * @throws TemplateProblem: the template refuses it, or writes it so that its turns cannot be told apart.
   */
  mark(conversation: Conversation, turns: LearnedTurns, isLearned: IsLearned): MarkedText {
    const { messages } = conversation
    const answers = messages.flatMap((message, index) => (message.role === 'assistant' ? [index] : []))
    const last = answers.at(-1)
    const wanted = answers.filter((index) => (turns === 'all' || index === last) && isLearned(messages[index]!, index))
    const whole = this.#template.render(conversation)
    checkCalls(messages, whole.text)
    if (!this.#template.marks) {
      return { text: whole.text, spans: wanted.map((index) => this.#turn(conversation, whole.text, index)) }
    }
    const { text, generated } = whole
    if (wanted.length === answers.length && turns === 'all') return { text, spans: generated }
    if (generated.length !== answers.length) {
      throw new TemplateProblem(
        `${this.#template.origin} marks ${generated.length} turns of ${answers.length}: which is which cannot be told`,
      )
    }
    return { text, spans: wanted.map((index) => generated[answers.indexOf(index)]!) }
  }

  /** The token that ends a turn, found in a short conversation; undefined where the template writes none. */
  get endOfTurn(): string | undefined {
    return (this.#end ??= { token: this.#findEnd() }).token
  }

  #findEnd(): string | undefined {
    const [question, answer] = ['Who?', 'Somebody.']
    const messages = [
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    ]
    const { text } = this.#template.render({ messages })
    const at = text.indexOf(answer, text.indexOf(question) + question.length)
    return at === -1 ? undefined : this.#tokenAfter(text, at + answer.length)?.token
  }

  #tokenAfter(text: string, at: number): { readonly token: string; readonly end: number } | undefined {
    const blank = /^\s*/.exec(text.slice(at, at + 64))?.[0].length ?? 0
    // A token may begin with blanks itself.
    for (const start of new Set([at, at + blank])) {
      const token = this.#added.find((one) => text.startsWith(one, start))
      if (token !== undefined) return { token, end: start + token.length }
    }
    return undefined
  }

  /** Where a turn lies in the text of the whole. */
  #turn(conversation: Conversation, whole: string, index: number): Span {
    const { messages, tools } = conversation
    const name = `message ${index + 1} (${messages[index]!.role})`
    const before = this.#template.render({ messages: messages.slice(0, index), tools }, { prompt: true }).text
    if (!whole.startsWith(before)) {
      throw new TemplateProblem(`${this.#template.origin} writes what comes before ${name} in another way afterwards`)
    }
    const start = before.length
    const { content } = messages[index]!
    // What is said stands there as it is, and behind it the token that ends a turn: nothing else has to be proved.
    if (typeof content === 'string') {
      const said = content.trim()
      const at = start + (/^\s*/.exec(whole.slice(start))?.[0].length ?? 0)
      const found = whole.startsWith(said, at) ? this.#tokenAfter(whole, at + said.length) : undefined
      if (found !== undefined && found.token === this.endOfTurn) return { start, end: found.end }
    }
    const until = this.#template.render({ messages: messages.slice(0, index + 1), tools }).text
    const token = this.endOfTurn
    const end = token === undefined ? Math.max(start, until.trimEnd().length) : until.lastIndexOf(token) + token.length
    if (!until.startsWith(before) || end < start || !whole.startsWith(until.slice(0, end))) {
      throw new TemplateProblem(`${this.#template.origin} writes ${name} in another way once something follows it`)
    }
    return { start, end }
  }
}

/** A template that knows nothing of tools would leave out calls without a word. */
function checkCalls(messages: readonly Message[], text: string): void {
  for (const [index, { tool_calls: calls }] of messages.entries()) {
    if (!Array.isArray(calls)) continue
    for (const call of calls as { readonly function?: { readonly name?: unknown } }[]) {
      const name = call.function?.name
      if (typeof name === 'string' && !text.includes(name)) {
        throw new TemplateProblem(`message ${index + 1} calls the tool ${name}, which the template does not write`)
      }
    }
  }
}
