import { LowrankError } from '../util/errors.ts'
import type { Dataset, PlacedSample } from './dataset.ts'
import { DatasetBuilder } from './dataset-builder.ts'
import { type EncodeOptions, SampleEncoder } from './encode.ts'
import { type DataSource, placeText, readRecords } from './readers/index.ts'
import { type Columns, isProblem, type Problem, type Sample, type ShapeName, ShapeReader } from './shapes/index.ts'
import { ReadProgress } from './progress.ts'
import type { TokenSink } from './store.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface ReadExamplesOptions extends EncodeOptions {
  /** The shape of all records; that of the first one by default. */
  readonly shape?: ShapeName | undefined
  readonly columns?: Columns | undefined
  /** Tokens an example may have; what is longer loses its end. */
  readonly maxLength: number
  /** Pass over malformed records and count them, instead of refusing the file. */
  readonly skipBadLines?: boolean | undefined
  /** At least one. */
  readonly sources: readonly DataSource[]
  readonly tokenizer: Tokenizer
  /** Rows of the model's embedding: a token id beyond them is refused. */
  readonly vocabSize?: number
  /** Asked between some records and the next. */
  readonly cancelled?: () => boolean
  /** Told now and then how far it is, where it takes long. */
  readonly report?: ((message: string) => void) | undefined
  /** Where the tokens go; memory by default. */
  readonly tokens?: TokenSink | undefined
  /** Whether the samples are kept beside their tokens. */
  readonly keepSamples?: boolean | undefined
  /** What is made of each sample before it is tokenized; itself by default. */
  readonly prepare?: ((sample: Sample) => Sample | Problem) | undefined
}

/**
 * Reads and tokenizes a dataset (`SampleEncoder`). Files with malformed records are refused with all of them counted and the first 20
 * shown.
 *
 * @throws LowrankError `data`; `model`: its tokenizer cannot be used; `cancelled`.
 */
export async function readExamples(options: ReadExamplesOptions): Promise<Dataset> {
  const { sources, tokenizer, skipBadLines = false, cancelled, prepare = (sample) => sample } = options
  const path = sources.map((source) => source.path).join(',')
  const encoder = new SampleEncoder(tokenizer, options)
  const builder = new DatasetBuilder({ ...options, encoder, path })
  const progress = await ReadProgress.of(sources, options)
  const shapes = new Set<string>()
  for (const source of sources) {
    builder.begin(source.path)
    const reader = new ShapeReader(options.shape, options.columns)
    const wanted = (columns: readonly string[]): readonly string[] | undefined => reader.wanted(columns)
    const pending: Promise<void>[] = []
    let batch: PlacedSample[] = []
    let size = 0
    const send = async (): Promise<void> => {
      if (cancelled?.() === true) throw new LowrankError('cancelled', `cancelled while reading ${source.path}`)
      const taken = batch
      batch = []
      size = 0
      // Two at a time: one is tokenized while the next is read. They are taken in order.
      const encoded = encoder.encode(taken.map(({ sample }) => sample))
      const before = pending.at(-1)
      const taking = Promise.all([encoded, before]).then(([found]) => builder.add(taken, found))
      // Where reading ends before it is waited for, that is the error.
      taking.catch(() => undefined)
      pending.push(taking)
      if (pending.length > 2) await pending.shift()
      progress.look(source.path, builder.made)
    }
    for await (const entry of readRecords(source.path, { cancelled, wanted, onBytes: progress.add })) {
      const read = 'error' in entry ? { problem: entry.error } : reader.read(entry.value)
      const found = isProblem(read) ? read : prepare(read)
      if (isProblem(found)) {
        builder.refuse(placeText(entry.place), found)
        continue
      }
      batch.push({ place: entry.place, sample: found })
      size += sizeOf(found)
      if (size >= charactersAtOnce) await send()
    }
    await send()
    await Promise.all(pending)
    if (reader.name !== undefined) shapes.add(reader.name)
  }
  return builder.finish({ skipBadLines, shape: [...shapes].join(', ') })
}

/** Characters that are tokenized at once: enough that asking costs little, and few enough that a cancel is seen soon. */
const charactersAtOnce = 256 * 1024

/** About as many characters as it has. */
function sizeOf(sample: Sample): number {
  switch (sample.kind) {
    case 'pair':
      return sample.prompt.length + sample.completion.length
    case 'text':
      return sample.text.length
    case 'chat':
      return sample.messages.reduce(
        (total, { content }) => total + (typeof content === 'string' ? content.length : 64),
        0,
      )
  }
}
