import { LowrankError } from '../util/errors.ts'
import { GrowingArray } from '../util/growing-array.ts'
import type { Encoded, SampleEncoder } from './encode.ts'
import { idOf, isLabel } from './example.ts'
import { type Dataset, type PlacedSample, placeOf } from './dataset.ts'
import { endsWithin, type FindingKind, fingerprints, Findings, lookAt, repeated, textsOf } from './findings.ts'
import { placeText } from './readers/index.ts'
import { isProblem, type Problem, type Sample } from './shapes/index.ts'
import { ExampleStore, indexFields, MemoryTokens, type SourceStart, type TokenSink } from './store.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface BuilderOptions {
  /** All of its files, for messages. */
  readonly path: string
  readonly tokenizer: Tokenizer
  readonly encoder: SampleEncoder
  readonly maxLength: number
  readonly vocabSize?: number | undefined
  readonly tokens?: TokenSink | undefined
  readonly keepSamples?: boolean | undefined
}

const shownLines = 20

/** Takes in what was tokenized, cuts and counts it, and says what is left. */
export class DatasetBuilder {
  readonly #options: BuilderOptions
  readonly #tokens: TokenSink
  readonly #index = new GrowingArray(Uint32Array)
  readonly #sources: SourceStart[] = []
  readonly #findings = new Findings()
  readonly #exact = new GrowingArray(Float64Array)
  readonly #near = new GrowingArray(Float64Array)
  readonly #special: RegExp | undefined
  readonly #samples: (Sample | undefined)[] = []
  readonly #bad: string[] = []
  #badLines = 0
  #badHint: string | undefined
  #counts = { tokens: 0, labelTokens: 0, truncated: 0, dropped: 0, empty: 0 }
  /** Answers of sentences, and those of them that end within one. */
  readonly #unfinished: string[] = []
  #sentences = 0

  constructor(options: BuilderOptions) {
    this.#options = options
    this.#tokens = options.tokens ?? new MemoryTokens()
    const special = options.tokenizer.specialTokens.map((token) => token.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'))
    this.#special = special.length === 0 ? undefined : new RegExp(special.join('|'))
  }

  get #examples(): number {
    return this.#index.length / indexFields
  }

  /** What there is so far. */
  get made(): { readonly examples: number; readonly tokens: number } {
    return { examples: this.#examples, tokens: this.#counts.tokens }
  }

  /** What comes next is of this file. */
  begin(path: string): void {
    this.#sources.push({ path, first: this.#examples })
  }

  /** Counts a record that cannot be used. */
  refuse(place: string, { problem, hint }: Problem): void {
    this.#badLines++
    this.#badHint ??= hint
    if (this.#bad.length < shownLines) this.#bad.push(`${place}: ${problem}`)
  }

  /** Takes samples in, of one file, as they were tokenized. */
  async add(samples: readonly PlacedSample[], encoded: readonly Encoded[]): Promise<void> {
    const first = samples[0]?.place
    if (first !== undefined) this.#sources.findLast(({ path }) => path === first.path)!.unit ??= first.unit
    for (const [i, marked] of encoded.entries()) {
      const { place, sample } = samples[i]!
      const where = placeText(place)
      if (isProblem(marked)) {
        this.refuse(where, marked)
        continue
      }
      const texts = textsOf(sample)
      for (const kind of lookAt(texts, this.#special)) this.#findings.add(kind, where)
      const ids = await this.#cut(marked, where)
      if (ids === undefined) continue
      const { exact, near } = fingerprints(sample, texts)
      this.#exact.add(exact)
      this.#near.add(near)
      const within = endsWithin(texts)
      if (within !== undefined) this.#sentences++
      if (within === true) this.#unfinished.push(where)
      const labels = countLabels(ids)
      this.#index.add(this.#tokens.add(ids), ids.length, labels, place.number)
      if (this.#options.keepSamples === true) this.#samples.push(ids.length < marked.length ? undefined : sample)
      this.#counts.tokens += ids.length
      this.#counts.labelTokens += labels
    }
  }

  /** The tokens of an example as they are kept, if there is something to learn of them. */
  async #cut(marked: Int32Array, where: string): Promise<Int32Array | undefined> {
    const { maxLength, vocabSize = Infinity, tokenizer, encoder } = this.#options
    const ids = marked.length > maxLength ? marked.slice(0, maxLength) : marked
    // Nothing predicts the first token of a sequence, so it can't be a label.
    if (ids.length > 0) ids[0] = idOf(ids[0]!)
    const beyond = ids.find((id) => idOf(id) >= vocabSize)
    if (beyond !== undefined) throw await beyondError(where, idOf(beyond), { tokenizer, vocabSize })
    if (ids.length < marked.length) {
      this.#counts.truncated++
      this.#findings.add('cut', where)
    }
    if (countLabels(ids) === 0) {
      this.#counts.dropped++
      this.#findings.add('nothingLearned', where)
      if (marked.length <= 1) this.#counts.empty++
      return undefined
    }
    const { prefix, eosId } = tokenizer
    if (prefix.length > 0 && idOf(ids[0]!) === prefix[0] && idOf(ids[1] ?? -1) === prefix[0]) {
      this.#findings.add('bosTwice', where)
    }
    const end = marked.findLast(isLabel)
    const known = [eosId, ...(encoder.endOfTurnId === undefined ? [] : [encoder.endOfTurnId])]
    if (ids.length === marked.length && !known.includes(idOf(end!))) this.#findings.add('eosNotLearned', where)
    return ids
  }

  /**
   * What has become of all of it.
   *
   * @throws LowrankError `data`: some was malformed, or nothing is left.
   */
  finish({ skipBadLines, shape }: { readonly skipBadLines: boolean; readonly shape: string }): Dataset {
    const { path } = this.#options
    const { tokens, labelTokens, truncated, dropped } = this.#counts
    const seen = this.#examples + dropped
    if (this.#badLines > 0 && !skipBadLines) throw this.#badLinesError(seen === 0)
    if (this.#examples === 0) throw this.#nothingLeftError()
    const examples = new ExampleStore(this.#index.values.slice(), this.#tokens.finish(), this.#sources)
    this.#compare(examples)
    const summary = {
      path,
      shape,
      examples: examples.length,
      tokens,
      labelTokens,
      truncated,
      dropped,
      skippedLines: this.#badLines,
      findings: this.#findings.list(),
    }
    const runs = this.#sources.map(({ first, unit }, i) => {
      return { first, length: (this.#sources[i + 1]?.first ?? examples.length) - first, unit }
    })
    const samples = this.#options.keepSamples === true ? this.#samples : undefined
    return { examples, runs, summary, problems: this.#bad, fingerprints: this.#exact.values, samples }
  }

  /** Findings that only all examples together show. */
  #compare(examples: ExampleStore): void {
    const add = (kind: FindingKind, i: number): void =>
      this.#findings.add(kind, placeOf(examples.at(i)!, this.#options))
    const same = new Set(repeated(this.#exact.values))
    for (const i of same) add('duplicate', i)
    for (const i of repeated(this.#near.values)) if (!same.has(i)) add('nearDuplicate', i)
    // Where most end so, they are not made of sentences.
    if (this.#unfinished.length * 2 < this.#sentences) {
      for (const where of this.#unfinished) this.#findings.add('unfinished', where)
    }
  }

  #badLinesError(all: boolean): LowrankError {
    const [count, shown] = [this.#badLines, this.#bad]
    const more = count > shown.length ? [`... and ${count - shown.length} more`] : []
    const lines = [`${this.#options.path}: ${count} malformed ${count === 1 ? 'line' : 'lines'}`, ...shown, ...more]
    return new LowrankError('data', lines.join('\n  '), {
      hint:
        (all ? this.#badHint : undefined) ??
        'Correct these lines, or skip them with --skip-bad-lines (skipBadLines: true).',
    })
  }

  #nothingLeftError(): LowrankError {
    const { path, maxLength } = this.#options
    const { dropped, empty } = this.#counts
    const tooLong = dropped - empty
    const reasons = [
      this.#badLines > 0 ? `${this.#badLines} malformed` : '',
      empty > 0 ? `${empty} with neither prompt nor completion` : '',
      tooLong > 0 ? `${tooLong} whose prompt fills maxLength (${maxLength} tokens)` : '',
    ].filter((reason) => reason !== '')
    const why = reasons.length === 0 ? 'the file is empty' : `lines: ${reasons.join(', ')}`
    // What is wrong with the first ones says most.
    const shown = this.#bad.slice(0, 3).map((one) => `\n  ${one}`)
    return new LowrankError('data', `${path}: no example left to use (${why})${shown.join('')}`, {
      hint:
        tooLong > 0
          ? 'Raise maxLength (--max-length), or shorten the prompts.'
          : (this.#badHint ??
            'Each line must be a JSON object with the texts "prompt" and "completion", or of another form in docs/data.md.'),
    })
  }
}

function countLabels(marked: Int32Array): number {
  let count = 0
  for (let t = 1; t < marked.length; t++) if (isLabel(marked[t]!)) count++
  return count
}

async function beyondError(
  where: string,
  id: number,
  { tokenizer, vocabSize }: { readonly tokenizer: Tokenizer; readonly vocabSize: number },
): Promise<LowrankError> {
  const token = JSON.stringify(await tokenizer.tokenOf(id))
  return new LowrankError('data', `${where}: token ${token} (id ${id}): the model's embedding has ${vocabSize} rows`, {
    hint: 'The tokenizer does not belong to this model, or the embedding has to be resized in Python first.',
  })
}
