import { findData } from '../hub/resolve.ts'
import { withShots } from '../text/asked.ts'
import { placeText, readRecords } from '../text/readers/index.ts'
import {
  type Columns,
  isProblem,
  type Problem,
  type Sample,
  type ShapeName,
  ShapeReader,
} from '../text/shapes/index.ts'
import { LowrankError } from '../util/errors.ts'
import { shuffled, stream } from '../util/random.ts'
import { plural } from '../util/format.ts'
import type { StatusEvent, TaskContext } from '../util/task.ts'

/** Examples that go before each prompt. */
export interface Shots {
  readonly samples: readonly Sample[]
  /** A sample with them before it. */
  readonly before: (sample: Sample) => Sample | Problem
}

interface ShotsConfig {
  readonly shots?: number | undefined
  readonly shotsFrom?: string | undefined
  readonly shape?: ShapeName | undefined
  readonly columns?: Columns | undefined
  readonly skipBadLines?: boolean | undefined
}

/**
 * Takes some examples of a file, the same each time: drawn with a seed that does not change, since files are often sorted.
 *
 * @throws LowrankError `data`: a record is none, or there are too few.
 */
export async function* readShots(
  config: ShotsConfig,
  context: TaskContext,
): AsyncGenerator<StatusEvent, Shots | undefined> {
  const { shots, shotsFrom } = config
  if (shots === undefined || shotsFrom === undefined) return undefined
  const found: Sample[] = []
  for (const { path } of yield* findData(shotsFrom, context)) {
    const reader = new ShapeReader(config.shape, config.columns)
    for await (const entry of readRecords(path, { cancelled: context.cancelled })) {
      const sample = 'error' in entry ? { problem: entry.error } : reader.read(entry.value)
      if (!isProblem(sample)) found.push(sample)
      else if (config.skipBadLines !== true)
        throw new LowrankError('data', `${placeText(entry.place)}: ${sample.problem}`)
    }
  }
  if (found.length < shots) {
    throw new LowrankError(
      'data',
      `shots: ${plural(shots, 'example')} are asked for, ${shotsFrom} has ${found.length}`,
      {
        hint: 'Ask for fewer (--shots), or name more data (--shots-from).',
      },
    )
  }
  const samples = Array.from(shuffled(found.length, stream(0, 'shots')).subarray(0, shots), (i) => found[i]!)
  return { samples, before: (sample) => withShots(sample, samples) }
}
