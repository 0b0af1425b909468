import type { TrainConfig } from '../config/index.ts'
import type { Dataset } from '../text/dataset.ts'
import type { DataSource } from '../text/readers/index.ts'
import { withOverlap } from '../text/overlap.ts'
import { divided, weighted } from '../text/views.ts'
import { LowrankError } from '../util/errors.ts'
import type { ReadOptions } from './read-tokens.ts'
import type { Session } from './session.ts'

/** What a run says of its data. */
export type DataConfig = ReadOptions & Pick<TrainConfig, 'train' | 'valid' | 'validSplit' | 'seed'>

/** The files of a run. */
export interface DataFiles {
  readonly train: readonly DataSource[]
  readonly valid: readonly DataSource[] | undefined
}

/** Training and validation data, tokenized. */
export interface TrainingData {
  readonly train: Dataset
  readonly valid: Dataset | undefined
}

/**
 * Reads the data of a run: each file as often an epoch as its weight says, and a share put apart for validation where one is asked for.
 *
 * @throws LowrankError `data`, `model`, `cancelled`: see `readExamples`.
 */
export async function readData(
  session: Session,
  files: DataFiles,
  config: DataConfig,
  report?: (message: string) => void,
): Promise<TrainingData> {
  const { seed, validSplit } = config
  // Samples are kept of what is evaluated alone.
  const keepSamples = config.keepSamples === true && files.valid === undefined
  const whole = await session.read(files.train, { ...config, keepSamples }, report)
  if (files.valid !== undefined) {
    const valid = withOverlap(await session.read(files.valid, config, report), whole)
    return { train: withWeights(whole, files.train, seed), valid }
  }
  if (validSplit === undefined) return { train: withWeights(whole, files.train, seed), valid: undefined }
  if (files.train.some(({ weight }) => weight !== 1)) {
    throw new LowrankError('config', 'validSplit: has no meaning where files have weights', {
      hint: 'An example could be on both sides. Name validation data (--valid), or leave out the weights.',
    })
  }
  const split = divided(whole, validSplit, seed)
  if (split === undefined) {
    const { length } = whole.examples
    throw new LowrankError('config', `validSplit: ${validSplit} of ${length} examples leaves one side empty`, {
      hint: 'Raise it, or name validation data (--valid).',
    })
  }
  return { train: { ...split.rest, samples: undefined }, valid: split.part }
}

function withWeights(dataset: Dataset, sources: readonly DataSource[], seed: number): Dataset {
  const runs = dataset.runs.map((run, i) => ({ ...run, weight: sources[i]!.weight }))
  return { ...dataset, examples: weighted(dataset.examples, runs, seed) }
}
