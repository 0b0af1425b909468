import { readJsonl } from '../formats/jsonl.ts'
import { otherFormat } from '../formats/not-jsonl.ts'
import { LowrankError } from '../util/errors.ts'
import { tokenizeRows } from './pairs.ts'
import { readRow, type Row } from './row.ts'
import type { Tokenizer } from './tokenizer.ts'

/** A tokenized training example. */
export interface Example {
  /** Token ids, [tokens]. */
  readonly ids: Int32Array
  /** [tokens]: 1 where the token is a label, that is, predicted from those before it and counted in the loss. */
  readonly labelMask: Uint8Array
  /** Where it comes from: the line of the file, from 1. */
  readonly line: number
}

/** Ids that lie one after the other: one array for each example would take as much again. */
class Ids {
  #chunk = new Int32Array(0)
  #used = 0

  /** A place for `ids`, which is theirs for good. */
  add(ids: Int32Array): { readonly chunk: Int32Array; readonly start: number } {
    if (this.#used + ids.length > this.#chunk.length) {
      this.#chunk = new Int32Array(Math.max(ids.length, idsPerChunk))
      this.#used = 0
    }
    const start = this.#used
    this.#chunk.set(ids, start)
    this.#used += ids.length
    return { chunk: this.#chunk, start }
  }
}

const idsPerChunk = 2 ** 18

/** An example whose ids lie among those of others, with labels from one of its tokens on. */
class StoredExample implements Example {
  readonly line: number
  readonly #chunk: Int32Array
  readonly #start: number
  readonly #length: number
  readonly #firstLabel: number

  constructor(
    ids: Int32Array,
    { place, firstLabel, line }: { readonly place: Ids; readonly firstLabel: number; readonly line: number },
  ) {
    const { chunk, start } = place.add(ids)
    this.#chunk = chunk
    this.#start = start
    this.#length = ids.length
    this.#firstLabel = firstLabel
    this.line = line
  }

  get ids(): Int32Array {
    return this.#chunk.subarray(this.#start, this.#start + this.#length)
  }

  get labelMask(): Uint8Array {
    return new Uint8Array(this.#length).fill(1, this.#firstLabel)
  }
}

/** Bytes that examples take in memory: their ids, and an object for each with its places in lists. */
export function dataBytes({ tokens, examples }: Pick<DatasetSummary, 'tokens' | 'examples'>): number {
  return 4 * tokens + 150 * examples
}

/** What a dataset became: counted, so that nothing disappears in silence. */
export interface DatasetSummary {
  readonly path: string
  /** Examples kept. */
  readonly examples: number
  /** Tokens of the kept examples, and how many of them carry a label. */
  readonly tokens: number
  readonly labelTokens: number
  /** Examples cut to `maxLength`. */
  readonly truncated: number
  /** Examples left without a label after cutting. */
  readonly dropped: number
  /** Malformed lines passed over (`skipBadLines`). */
  readonly skippedLines: number
}

/** A dataset in memory. */
export interface Dataset {
  readonly examples: readonly Example[]
  readonly summary: DatasetSummary
}

export interface ReadExamplesOptions {
  /** A JSONL file; each line an object with the texts `prompt` and `completion`. */
  readonly path: string
  readonly tokenizer: Tokenizer
  /** Tokens an example may have; what is longer loses its end. */
  readonly maxLength: number
  /** Pass over malformed lines and count them, instead of refusing the file. */
  readonly skipBadLines?: boolean
  /** Rows of the model's embedding: a token id beyond them is refused. */
  readonly vocabSize?: number
  /** Asked between some lines and the next. */
  readonly cancelled?: () => boolean
}

/**
 * Reads and tokenizes a dataset (`tokenizeRows`), with labels on the completion and EOS. A file with malformed lines is refused with all of
 * them counted and the first 20 shown.
 *
 * @throws LowrankError `data`; `model`: its tokenizer cannot be used; `cancelled`.
 */
export async function readExamples(options: ReadExamplesOptions): Promise<Dataset> {
  const { path, tokenizer, maxLength, skipBadLines = false, vocabSize = Infinity } = options
  const examples: Example[] = []
  const place = new Ids()
  const bad: string[] = []
  let badLines = 0
  let tokens = 0
  let labelTokens = 0
  let truncated = 0
  let dropped = 0
  /** Of those dropped: both texts are empty. */
  let empty = 0
  /** What to do about rows of another shape. */
  let rowHint: string | undefined
  const take = async (rows: readonly LinedRow[]): Promise<void> => {
    if (options.cancelled?.() === true) throw new LowrankError('cancelled', `cancelled while reading ${path}`)
    const tokenized = await tokenizeRows(tokenizer, rows)
    for (const [i, { ids: whole, border }] of tokenized.entries()) {
      const { line } = rows[i]!
      const ids = whole.length > maxLength ? whole.slice(0, maxLength) : whole
      if (ids.length < whole.length) truncated++
      const beyond = ids.find((id) => id >= vocabSize)
      if (beyond !== undefined) throw await beyondError(`${path}:${line}`, beyond, { tokenizer, vocabSize })
      // Nothing predicts the first token of a sequence, so it can't be a label.
      const firstLabel = Math.max(border, 1)
      if (ids.length <= firstLabel) {
        dropped++
        if (ids.length === 1) empty++
        continue
      }
      examples.push(new StoredExample(ids, { place, firstLabel, line }))
      tokens += ids.length
      labelTokens += ids.length - firstLabel
    }
  }
  let rows: LinedRow[] = []
  let characters = 0
  for await (const entry of readJsonl(path)) {
    const { line } = entry
    const row = 'error' in entry ? { problem: entry.error } : readRow(entry.value)
    if ('problem' in row) {
      if (badLines === 0 && examples.length + dropped + rows.length === 0) await refuseOtherFormat(path)
      badLines++
      rowHint ??= row.hint
      if (bad.length < shownLines) bad.push(`${path}:${line}: ${row.problem}`)
      continue
    }
    rows.push({ line, ...row })
    characters += row.prompt.length + row.completion.length
    if (characters < charactersAtOnce) continue
    await take(rows)
    rows = []
    characters = 0
  }
  await take(rows)
  if (badLines > 0 && !skipBadLines) {
    const hint = examples.length + dropped === 0 ? rowHint : undefined
    throw badLinesError(path, { shown: bad, count: badLines, hint })
  }
  if (examples.length === 0) {
    throw nothingLeftError(path, { badLines, empty, tooLong: dropped - empty, maxLength, rowHint })
  }
  const summary = { path, examples: examples.length, tokens, labelTokens, truncated, dropped, skippedLines: badLines }
  return { examples, summary }
}

const shownLines = 20

/** Characters that are tokenized at once: enough that asking costs little, and few enough that a cancel is seen soon. */
const charactersAtOnce = 256 * 1024

type LinedRow = Row & { readonly line: number }

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

async function refuseOtherFormat(path: string): Promise<void> {
  const format = await otherFormat(path)
  if (format === undefined) return
  const { what, hint } = format
  throw new LowrankError('data', `${path} is ${what}; one JSON object a line (JSONL) is expected`, { hint })
}

function badLinesError(
  path: string,
  { shown, count, hint }: { shown: readonly string[]; count: number; hint: string | undefined },
): LowrankError {
  const more = count > shown.length ? [`... and ${count - shown.length} more`] : []
  const lines = [`${path}: ${count} malformed ${count === 1 ? 'line' : 'lines'}`, ...shown, ...more]
  return new LowrankError('data', lines.join('\n  '), {
    hint: hint ?? 'Correct these lines, or skip them with --skip-bad-lines (skipBadLines: true).',
  })
}

interface NothingLeft {
  readonly badLines: number
  readonly empty: number
  readonly tooLong: number
  readonly maxLength: number
  readonly rowHint: string | undefined
}

function nothingLeftError(path: string, { badLines, empty, tooLong, maxLength, rowHint }: NothingLeft): LowrankError {
  const reasons = [
    badLines > 0 ? `${badLines} malformed` : '',
    empty > 0 ? `${empty} with neither prompt nor completion` : '',
    tooLong > 0 ? `${tooLong} whose prompt fills maxLength (${maxLength} tokens)` : '',
  ].filter((reason) => reason !== '')
  return new LowrankError(
    'data',
    `${path}: no example left to use (${reasons.length === 0 ? 'the file is empty' : `lines: ${reasons.join(', ')}`})`,
    {
      hint:
        tooLong > 0
          ? 'Raise maxLength (--max-length), or shorten the prompts.'
          : (rowHint ?? 'Each line must be a JSON object with the texts "prompt" and "completion".'),
    },
  )
}
