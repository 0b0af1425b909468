import { isJsonObject } from '../formats/json.ts'
import { readJsonl } from '../formats/jsonl.ts'
import { LowrankError } from '../util/errors.ts'
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
}

/**
 * Reads and tokenizes a dataset: ids = prefix + tokens(prompt) + tokens(completion) + EOS, labels on the completion and
 * EOS. Prompt and completion are tokenized apart, so that the prompt's ids are those seen at generation. A file with
 * malformed lines is refused with all of them counted and the first 20 shown. Errors have code `data`.
 */
export async function readExamples(
  options: ReadExamplesOptions,
): Promise<{ examples: Example[]; summary: DatasetSummary }> {
  const { path, tokenizer, maxLength, skipBadLines = false } = options
  const examples: Example[] = []
  const bad: string[] = []
  let badLines = 0
  let tokens = 0
  let labelTokens = 0
  let truncated = 0
  let dropped = 0
  for await (const entry of readJsonl(path)) {
    const { line } = entry
    const parsed = 'error' in entry ? entry.error : parseLine(entry.value)
    if (typeof parsed === 'string') {
      badLines++
      if (bad.length < shownLines) bad.push(`${path}:${line}: ${parsed}`)
      continue
    }
    const prompt = [...tokenizer.prefix, ...tokenizer.encode(parsed.prompt)]
    const ids = prompt.concat(tokenizer.encode(parsed.completion), tokenizer.eosId)
    if (ids.length > maxLength) {
      ids.length = maxLength
      truncated++
    }
    checkIds(ids, `${path}:${line}`, options.vocabSize)
    // Nothing predicts the first token of a sequence, so it can't be a label.
    const firstLabel = Math.max(prompt.length, 1)
    if (ids.length <= firstLabel) {
      dropped++
      continue
    }
    const labelMask = new Uint8Array(ids.length).fill(1, firstLabel)
    examples.push({ ids: Int32Array.from(ids), labelMask, line })
    tokens += ids.length
    labelTokens += ids.length - firstLabel
  }
  if (badLines > 0 && !skipBadLines) throw badLinesError(path, bad, badLines)
  if (examples.length === 0) {
    const why = badLines + dropped === 0 ? 'it is empty' : `${badLines} lines malformed, ${dropped} without a label`
    throw new LowrankError('data', `${path}: no example left to use (${why})`, {
      hint:
        dropped > 0
          ? `The prompts alone fill maxLength (${maxLength} tokens): raise it, or shorten them.`
          : 'Each line must be a JSON object with the texts "prompt" and "completion".',
    })
  }
  const summary = { path, examples: examples.length, tokens, labelTokens, truncated, dropped, skippedLines: badLines }
  return { examples, summary }
}

const shownLines = 20

/** The texts of a line, or what is wrong with it. Further keys are left alone. */
function parseLine(value: unknown): { prompt: string; completion: string } | string {
  if (!isJsonObject(value)) return 'not a JSON object'
  const { prompt, completion } = value
  for (const [key, text] of Object.entries({ prompt, completion })) {
    if (text === undefined) return `"${key}" is missing`
    if (typeof text !== 'string') return `"${key}" is not text`
  }
  return { prompt: prompt as string, completion: completion as string }
}

function checkIds(ids: readonly number[], where: string, vocabSize = Infinity): void {
  const id = ids.find((one) => one >= vocabSize)
  if (id === undefined) return
  throw new LowrankError('data', `${where}: token id ${id} is outside the model's vocabulary of ${vocabSize}`, {
    hint: 'The tokenizer does not belong to this model, or the model needs a larger embedding.',
  })
}

function badLinesError(path: string, shown: readonly string[], count: number): LowrankError {
  const more = count > shown.length ? [`... and ${count - shown.length} more`] : []
  const lines = [`${path}: ${count} malformed ${count === 1 ? 'line' : 'lines'}`, ...shown, ...more]
  return new LowrankError('data', lines.join('\n  '), {
    hint: 'Mend these lines, or pass over them with --skip-bad-lines (skipBadLines: true).',
  })
}
