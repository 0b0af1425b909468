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

/**
 * Refuses to write where a file is already; `option` named it.
 *
 * @throws LowrankError `config`
 */
export async function refuseExisting(option: string, path: string): Promise<void> {
  if ((await stat(path).catch(() => undefined)) === undefined) return
  throw new LowrankError('config', `${option}: ${path} is there already`, {
    hint: 'Name another place, or remove it first.',
  })
}

/** Writes a JSONL file that was not there of the values that `produce` adds; how many they are. */
async function writeJsonl(
  path: string,
  produce: (add: (value: unknown) => Promise<void>) => Promise<void>,
): Promise<number> {
  await refuseExisting('output', path)
  await mkdir(dirname(path), { recursive: true })
  let count = 0
  await writeStreamAtomic(path, async (write) => {
    let text = ''
    await produce(async (value) => {
      count++
      text += `${JSON.stringify(value)}\n`
      if (text.length < bytesAtOnce) return
      await write(Buffer.from(text))
      text = ''
    })
    await write(Buffer.from(text))
  })
  return count
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
  const isValid = (value: unknown, place: string): boolean => {
    const key = group === undefined ? value : keyOf(value, group, place)
    const digest = createHash('sha256')
      .update(`${seed}\0${JSON.stringify(key)}`)
      .digest()
    return digest.readUIntBE(0, 6) / 2 ** 48 < share
  }
  let validRecords = 0
  // One within the other: the data may be a pipe, which is read once, and both files are there or none.
  const trainRecords = await writeJsonl(train, async (toTrain) => {
    validRecords = await writeJsonl(valid, async (toValid) => {
      for await (const { place, value } of recordsOf(data)) await (isValid(value, place) ? toValid : toTrain)(value)
    })
  })
  return { train: { path: train, records: trainRecords }, valid: { path: valid, records: validRecords } }
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
  const reader = new ShapeReader(shape, columns)
  const records = await writeJsonl(output, async (add) => {
    for await (const { place, value } of recordsOf(data)) {
      const found = reader.read(value)
      if (isProblem(found)) throw new LowrankError('data', `${place}: ${found.problem}`, hintOf(found.hint))
      await add(asMessages(found, place))
    }
  })
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
  const records = await writeJsonl(output, async (add) => {
    for await (const { value } of recordsOf(data)) {
      const made = map(value)
      if (made !== undefined) await add(made)
    }
  })
  return { path: output, records }
}
