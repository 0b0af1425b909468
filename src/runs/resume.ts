import type { TrainConfig } from '../config/index.ts'
import { latestCheckpoint, readCheckpoint, settleCheckpoints, type Checkpoint } from './checkpoint.ts'
import type { TrainEvent } from '../train/events.ts'
import { changedInputs, changedVersions, type RunInputs } from './run-inputs.ts'
import { dayOf } from '../text/template/date.ts'
import { LowrankError } from '../util/errors.ts'

/** Where a run is to begin. */
type ResumeConfig = Pick<TrainConfig, 'outputDir' | 'resume' | 'resumeFrom' | 'resumeAnyway' | 'activations'>

/** Where a run begins, and what there is to say about it. */
interface Start {
  /** The checkpoint to go on from; undefined: the first step. */
  readonly from: Checkpoint | undefined
  readonly notices: TrainEvent[]
}

/**
 * Finds the checkpoint that a run is asked to go on from.
 *
 * @throws LowrankError `checkpoint`: it is damaged, or none is whole.
 */
export async function findStart(config: ResumeConfig): Promise<Start> {
  const notices: TrainEvent[] = []
  const from = await findCheckpoint(config, notices)
  return { from, notices }
}

/** The day that the templates of a run write: that of its options, or that on which it began. */
export function dayOfRun(from: Checkpoint | undefined, now = new Date()): string {
  const recorded = from?.record.inputs.config['templateDate']
  return typeof recorded === 'string' ? recorded : dayOf(now)
}

/**
 * Checks that a run that goes on is the same still; what there is to say about it.
 *
 * @throws LowrankError `config`: the run has changed since, and `resumeAnyway` is not set.
 */
export function checkResumed(from: Checkpoint, config: ResumeConfig, inputs: RunInputs): TrainEvent[] {
  const notices: TrainEvent[] = []
  const { record, folder } = from
  const changes = [...changedInputs(record.inputs, inputs)]
  const { activations } = record.memory
  if (config.activations !== 'auto' && config.activations !== activations) {
    changes.push(`activations: ${activations} -> ${config.activations}`)
  }
  const list = changes.map((change) => `\n  ${change}`).join('')
  if (changes.length > 0 && !config.resumeAnyway) {
    throw new LowrankError('config', `cannot resume from ${folder}: the run has changed since:${list}`, {
      hint: 'Set it back, or resume with what is new: "resumeAnyway" (--resume-anyway).',
    })
  }
  if (changes.length > 0) notices.push({ type: 'warning', message: `the run has changed since ${folder}:${list}` })
  if (record.inputs.hashes['valid'] !== inputs.hashes['valid']) {
    const message = `the validation data have changed since ${folder}: evaluation losses before and after it do not compare`
    notices.push({ type: 'warning', message })
  }
  const versions = changedVersions(record.inputs, inputs)
  if (versions.length > 0) {
    const message = `${folder} was written with other versions (${versions.join(', ')}): results may differ in their last bits`
    notices.push({ type: 'warning', message })
  }
  notices.push({ type: 'resume', step: record.state.step, path: folder })
  return notices
}

async function findCheckpoint(config: ResumeConfig, notices: TrainEvent[]): Promise<Checkpoint | undefined> {
  const { resume, resumeFrom, outputDir } = config
  if (resumeFrom !== undefined) return readCheckpoint(resumeFrom)
  if (!resume) return undefined
  await settleCheckpoints(outputDir)
  const found = await latestCheckpoint(outputDir)
  if (found === undefined) {
    notices.push({
      type: 'status',
      message: `there is no checkpoint in ${outputDir} yet: starting with the first step`,
    })
    return undefined
  }
  for (const message of found.damaged) {
    notices.push({ type: 'warning', message: `${message}; going back to ${found.checkpoint.folder}` })
  }
  return found.checkpoint
}
