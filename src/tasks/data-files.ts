import { createHash } from 'node:crypto'
import { mkdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { writeStreamAtomic } from '../formats/atomic.ts'
import { isJsonObject } from '../formats/json.ts'
import { findSources, placeText, readRecords } from '../text/readers/index.ts'
import { type Columns, isProblem, type Sample, type ShapeName, ShapeReader } from '../text/shapes/index.ts'
import { LowrankError } from '../util/errors.ts'

/*
 * Files of data made of files of data; no model is needed.
 */

/** Bytes that are written at once. */
const bytesAtOnce = 2 ** 20

/** Writes a file that was not there. */
async function writeLines(path: string, lines: AsyncIterable<string>): Promise<void> {
  if ((await stat(path).catch(() => undefined)) !== undefined) {
    throw new LowrankError('config', `output: ${path} is there already`, {
      hint: 'Name another place, or remove it first.',
    })
  }
  await mkdir(dirname(path), { recursive: true })
  await writeStreamAtomic(path, async (write) => {
    let text = ''
    for await (const line of lines) {
      text += line
      if (text.length < bytesAtOnce) continue
      await write(Buffer.from(text))
      text = ''
    }
    await write(Buffer.from(text))
  })
}

/** Data of the hub is downloaded by what trains or looks at it. */
async function fetched(): Promise<never> {
  throw new LowrankError('data', 'a dataset of the hub cannot be rewritten directly', {
    hint: 'Download it first: lowrank data inspect hf:... --model MODEL, then name its files in the cache.',
  })
}

/** All records of files, as they are; a malformed one ends it. */
async function* recordsOf(data: string): AsyncGenerator<{ readonly place: string; readonly value: unknown }> {
  for (const { path } of await findSources(data, { hub: fetched })) {
    for await (const entry of readRecords(path)) {
      const place = placeText(entry.place)
      if ('error' in entry) throw new LowrankError('data', `${place}: ${entry.error}`, { hint: 'Correct this record.' })
      yield { place, value: entry.value }
    }
  }
}

export interface SplitConfig {
  readonly data: string
  readonly output: string
  readonly share: number
  readonly group?: string | undefined
  readonly seed: number
}

export interface SplitResult {
  /** Files, and how many records each has. */
  readonly train: { readonly path: string; readonly records: number }
  readonly valid: { readonly path: string; readonly records: number }
}

/**
 * Divides data into `train.jsonl` and `valid.jsonl` of a folder. A record's side follows from its own content (or its group) and the seed
 * alone: equal records stay together, and further ones change nothing for those that were there.
 *
 * @throws LowrankError `data`, `io`; `config`: a file is there already.
 */
export async function splitFiles({ data, output, share, group, seed }: SplitConfig): Promise<SplitResult> {
  const [train, valid] = ['train.jsonl', 'valid.jsonl'].map((name) => join(output, name)) as [string, string]
  const counts = { train: 0, valid: 0 }
  const isValid = (value: unknown, place: string): boolean => {
    const key = group === undefined ? value : keyOf(value, group, place)
    const digest = createHash('sha256')
      .update(`${seed}\0${JSON.stringify(key)}`)
      .digest()
    return digest.readUIntBE(0, 6) / 2 ** 48 < share
  }
  const lines = async function* (side: 'train' | 'valid'): AsyncGenerator<string> {
    for await (const { place, value } of recordsOf(data)) {
      if (isValid(value, place) !== (side === 'valid')) continue
      counts[side]++
      yield `${JSON.stringify(value)}\n`
    }
  }
  await writeLines(train, lines('train'))
  await writeLines(valid, lines('valid'))
  return { train: { path: train, records: counts.train }, valid: { path: valid, records: counts.valid } }
}

function keyOf(value: unknown, group: string, place: string): unknown {
  if (isJsonObject(value) && Object.hasOwn(value, group)) return value[group]
  throw new LowrankError('data', `${place}: the key ${JSON.stringify(group)}, by which is grouped, is missing`)
}

export interface ConvertConfig {
  readonly data: string
  readonly output: string
  readonly shape?: ShapeName | undefined
  readonly columns?: Columns | undefined
}

export interface ConvertResult {
  readonly path: string
  readonly records: number
}

/**
 * Writes data of any shape as chats in JSONL, `{"messages": [...]}` as OpenAI has them.
 *
 * @throws LowrankError `data`: a record is malformed, or says of nothing who says it; `io`; `config`: the file is there already.
 */
export async function convertFiles({ data, output, shape, columns }: ConvertConfig): Promise<ConvertResult> {
  let records = 0
  const lines = async function* (): AsyncGenerator<string> {
    const reader = new ShapeReader(shape, columns)
    for await (const { place, value } of recordsOf(data)) {
      const found = reader.read(value)
      if (isProblem(found)) throw new LowrankError('data', `${place}: ${found.problem}`, hintOf(found.hint))
      yield `${JSON.stringify(asMessages(found, place))}\n`
      records++
    }
  }
  await writeLines(output, lines())
  return { path: output, records }
}

function hintOf(hint: string | undefined): { readonly hint?: string } {
  return hint === undefined ? {} : { hint }
}

function asMessages(sample: Sample, place: string): object {
  switch (sample.kind) {
    case 'text':
      throw new LowrankError('data', `${place}: a plain text is no conversation`)
    case 'pair':
      return {
        messages: [
          { role: 'user', content: sample.prompt },
          { role: 'assistant', content: sample.completion },
        ],
      }
    case 'chat': {
      const { messages, tools, unlearned } = sample
      const weighted = messages.map((message, i) => (unlearned?.has(i) === true ? { ...message, weight: 0 } : message))
      return { messages: weighted, ...(tools === undefined ? {} : { tools }) }
    }
  }
}

/**
 * Writes what a function makes of each record as JSONL: for files whose columns are not what is read. A record of which it makes undefined
 * is left out.
 */
export async function mapFiles(
  data: string,
  output: string,
  map: (record: unknown) => unknown,
): Promise<ConvertResult> {
  let records = 0
  const lines = async function* (): AsyncGenerator<string> {
    for await (const { value } of recordsOf(data)) {
      const made = map(value)
      if (made === undefined) continue
      records++
      yield `${JSON.stringify(made)}\n`
    }
  }
  await writeLines(output, lines())
  return { path: output, records }
}
