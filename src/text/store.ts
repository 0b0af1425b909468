import { closeSync, openSync, readSync } from 'node:fs'
import { type Example, type Examples, idsOf, labelMaskOf } from './example.ts'
import type { Place } from './readers/index.ts'

/** Numbers of an index that each example has. */
export const indexFields = 4

/** What is known of each example without its tokens: [examples * 4], where its tokens begin, how many, how many labels, its line. */
export type ExampleIndex = Uint32Array

/** The tokens of all examples, marked, one after the other. */
export interface TokenSource {
  /** The tokens from `start` on. */
  read(start: number, length: number): Int32Array
  close(): void
}

/** Where tokens are put. */
export interface TokenSink {
  /** Where they are now. */
  add(tokens: Int32Array): number
  /** To be called once, when all are there: they can be read then. */
  finish(): TokenSource
}

/** A file of examples: its first one, by number. */
export interface SourceStart {
  readonly path: string
  readonly first: number
  /** What its records are numbered by; known with its first one. */
  unit?: Place['unit'] | undefined
}

/** Examples whose tokens lie in memory or in a file, with 16 bytes of each in memory. */
export class ExampleStore implements Examples {
  readonly index: ExampleIndex
  readonly #tokens: TokenSource
  readonly #sources: readonly SourceStart[]

  constructor(index: ExampleIndex, tokens: TokenSource, sources: readonly SourceStart[]) {
    this.index = index
    this.#tokens = tokens
    this.#sources = sources
  }

  get length(): number {
    return this.index.length / indexFields
  }

  at(position: number): Example | undefined {
    const i = position < 0 ? this.length + position : position
    if (i < 0 || i >= this.length) return undefined
    const [start, tokens, labels, line] = this.index.subarray(i * indexFields, (i + 1) * indexFields) as unknown as Four
    const source = this.#sources.findLast(({ first }) => first <= i)
    const path = this.#sources.length < 2 ? undefined : source?.path
    return new StoredExample(this.#tokens, start, { tokens, labels, line, path, unit: source?.unit })
  }

  slice(start = 0, end = this.length): Example[] {
    const [from, to] = [start, end].map((at) => Math.min(this.length, at < 0 ? Math.max(0, this.length + at) : at))
    return Array.from({ length: Math.max(0, to! - from!) }, (_, i) => this.at(from! + i)!)
  }

  /** Lets go of the tokens. */
  close(): void {
    this.#tokens.close()
  }
}

type Four = readonly [number, number, number, number]

class StoredExample implements Example {
  readonly tokens: number
  readonly labels: number
  readonly line: number
  readonly unit: Place['unit'] | undefined
  readonly path: string | undefined
  readonly #source: TokenSource
  readonly #start: number
  #marked: Int32Array | undefined

  constructor(
    source: TokenSource,
    start: number,
    known: Required<Pick<Example, 'tokens' | 'labels' | 'line'>> & Pick<Example, 'path' | 'unit'>,
  ) {
    this.#source = source
    this.#start = start
    this.tokens = known.tokens
    this.labels = known.labels
    this.line = known.line
    this.unit = known.unit
    this.path = known.path
  }

  get ids(): Int32Array {
    return idsOf(this.#read())
  }

  get labelMask(): Uint8Array {
    return labelMaskOf(this.#read())
  }

  #read(): Int32Array {
    return (this.#marked ??= this.#source.read(this.#start, this.tokens))
  }
}

/** Tokens in memory, in chunks that are never moved. */
export class MemoryTokens implements TokenSink, TokenSource {
  readonly #chunks: { readonly start: number; readonly tokens: Int32Array }[] = []
  #total = 0
  #used = 0

  /** Where they are now. */
  add(tokens: Int32Array): number {
    const last = this.#chunks.at(-1)
    if (last === undefined || this.#used + tokens.length > last.tokens.length) {
      this.#chunks.push({ start: this.#total, tokens: new Int32Array(Math.max(tokens.length, tokensPerChunk)) })
      this.#used = 0
    }
    this.#chunks.at(-1)!.tokens.set(tokens, this.#used)
    this.#used += tokens.length
    const start = this.#total
    this.#total += tokens.length
    return start
  }

  finish(): TokenSource {
    return this
  }

  read(start: number, length: number): Int32Array {
    let [low, high] = [0, this.#chunks.length - 1]
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#chunks[middle]!.start <= start) low = middle
      else high = middle - 1
    }
    const { start: first, tokens } = this.#chunks[low]!
    return tokens.subarray(start - first, start - first + length)
  }

  close(): void {}
}

const tokensPerChunk = 2 ** 18

/** Tokens in a file: read when they are wanted, which the system does from memory it has to spare. */
export class FileTokens implements TokenSource {
  readonly #file: number
  readonly #path: string

  /** `file`: the descriptor of `path`, opened for reading. */
  constructor(path: string, file = openSync(path, 'r')) {
    this.#file = file
    this.#path = path
  }

  read(start: number, length: number): Int32Array {
    const tokens = new Int32Array(length)
    const bytes = new Uint8Array(tokens.buffer)
    let done = 0
    while (done < bytes.length) {
      const count = readSync(this.#file, bytes, done, bytes.length - done, start * 4 + done)
      if (count === 0) throw new Error(`${this.#path} ends before token ${start + length}`)
      done += count
    }
    return tokens
  }

  close(): void {
    closeSync(this.#file)
  }
}
