/** Turns sequences of ids into texts. */
export type Decode = (sequences: readonly ArrayLike<number>[]) => Promise<string[]>

/**
 * The text of tokens that come one by one. What a token adds is the difference that it makes to the text of the few tokens before it, since
 * a tokenizer may treat the first token of a text in another way than later ones. While the text ends in the middle of a character, it is
 * held back; so is an end that may become a stop text.
 *
 * The texts that come are the text of all tokens, but for bytes that are no characters among such that are: a tokenizer of bytes beside
 * pieces decodes all of a run of bytes as U+FFFD where one of them is wrong.
 */
export class TextStream {
  readonly #ids: number[] = []
  readonly #stops: readonly string[]
  /** Tokens whose text is the context of what is decoded next, and those whose text was taken. */
  #context = 0
  #taken = 0
  #held = ''
  /** Whether a stop text came. */
  stopped = false

  constructor(stops: readonly string[] = []) {
    this.#stops = stops
  }

  /** The two sequences that have to be decoded once an id is added: the context, and the context with what is new. */
  add(id: number): readonly [number[], number[]] {
    this.#ids.push(id)
    return this.pending()
  }

  /** Those that have to be decoded where no id is added: what is held back of a character may be left. */
  pending(): readonly [number[], number[]] {
    return [this.#ids.slice(this.#context, this.#taken), this.#ids.slice(this.#context)]
  }

  /** Takes their texts. -> the text that is certain now. */
  take([before, after]: readonly [string, string], { last = false } = {}): string {
    if (after.endsWith('\ufffd') && !last) return ''
    // Tokens without a text, as special ones are, are no context: what follows would be decoded as the beginning of a text.
    if (after.length === before.length) return ''
    this.#context = this.#taken
    this.#taken = this.#ids.length
    return this.#release(after.slice(before.length))
  }

  /** What was held back, once no more tokens come. */
  end(): string {
    const rest = this.stopped ? '' : this.#held
    this.#held = ''
    return rest
  }

  #release(text: string): string {
    if (this.stopped) return ''
    const all = this.#held + text
    const found = this.#stops.map((stop) => all.indexOf(stop)).filter((at) => at !== -1)
    if (found.length > 0) {
      this.stopped = true
      this.#held = ''
      return all.slice(0, Math.min(...found))
    }
    const held = Math.max(0, ...this.#stops.map((stop) => commonEnd(all, stop)))
    this.#held = all.slice(all.length - held)
    return all.slice(0, all.length - held)
  }
}

/** Characters at the end of a text that are the beginning of a stop text. */
function commonEnd(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length
  }
  return 0
}
