import { z } from 'zod'
import { count, option, path } from '../config/fields.ts'
import { optionSet } from '../config/index.ts'
import type { ReplayResult } from '../tasks/replay.ts'
import { printable, table } from '../terminal/format.ts'
import { number, plural } from '../util/format.ts'
import { word } from './argument.ts'
import type { StatusOptions } from './compute.ts'
import { defineCommand } from './define.ts'

export type { ReplayedExample, ReplayResult } from '../tasks/replay.ts'

const options = optionSet(
  z.strictObject({
    step: option(count, { group: 'Replay', description: 'The step to compute again, from 1' }),
    at: option(path.optional(), {
      group: 'Replay',
      description:
        'Take the weights of this folder as they are (a checkpoint, an adapter, or a model where all weights were trained), ' +
        'instead of computing the steps before',
      placeholder: 'DIR',
      unset: 'the newest checkpoint before the step, and the steps from there',
    }),
    sort: option(z.enum(['loss', 'batch']).default('loss'), {
      group: 'Replay',
      description: 'Order of the examples: the highest loss first, or as they were computed',
    }),
    anyway: option(z.boolean().default(false), {
      group: 'Replay',
      description: 'Replay although model or data have changed since the run',
    }),
  }),
)

/** Options of `replay` besides the run, as a user passes them. */
export type ReplayOptionsInput = z.input<typeof options.schema>

/**
 * Computes a step of an earlier run (its output folder) again, and reports the loss of each of its examples. The loss of the step equals the
 * recorded one to the last bit, unless weights are given by `at`.
 */
export const replay: (run: string, options: ReplayOptionsInput, callOptions?: StatusOptions) => Promise<ReplayResult> =
  defineCommand({
    name: 'replay',
    summary: 'Compute a step of an earlier run again, and report the loss of each of its examples',
    usage: 'RUN --step N [flags]',
    notes:
      'RUN is the output folder of a training run. Batches and dropout masks are those of the step; its weights are ' +
      'recomputed from the newest checkpoint before it, or from the start, so that the loss equals the recorded one to the last bit. ' +
      '--at takes weights as they are, where that would take too long.',
    argument: word('run', 'RUN'),
    options,
    load: async () => (await import('../tasks/replay.ts')).runReplay,
    text: (result, { width }) => replayLines(result, width),
  })

/** A replayed step: where its weights come from, its loss beside the recorded one, and a table of its examples. */
function replayLines(result: ReplayResult, width: number): string[] {
  const { step, epoch, examples, microBatches, labelTokens } = result
  const counts = [plural(examples.length, 'example'), `${microBatches} micro-batch${microBatches === 1 ? '' : 'es'}`]
  const rows = examples.map((example) => [
    String(example.line),
    String(example.microBatch),
    String(example.tokens),
    String(example.labelTokens),
    number(example.loss),
  ])
  const lines = table(
    [examples.every(({ unit }) => unit === 'row') ? 'row' : 'line', 'micro-batch', 'tokens', 'labels', 'loss'],
    rows,
  )
  const taken = Math.max(...lines.map((line) => line.length)) + 2
  return [
    `step ${step}, epoch ${epoch.toFixed(2)}: ${counts.join(' in ')}, ${plural(labelTokens, 'label token')}; ${weightsText(result)}`,
    `loss: ${lossText(result)}`,
    '',
    ...lines.map((line, i) => {
      const text = i === 0 ? 'completion' : shortened(examples[i - 1]?.completion ?? '', Math.max(20, width - taken))
      return `${line.padEnd(taken)}${text}`
    }),
  ]
}

function weightsText({ weights }: ReplayResult): string {
  const { from, path = '', recomputed } = weights
  if (from === 'folder') return `weights of ${path} as they are`
  const again = recomputed === 0 ? '' : `, ${plural(recomputed, 'step')} computed again`
  return `weights from ${from === 'start' ? 'the start of the run' : path}${again}`
}

function lossText({ recorded, loss, equal, firstDifference, weights }: ReplayResult): string {
  if (recorded === undefined) return `${loss}; the run has recorded none for this step`
  const both = `recorded ${recorded}, replayed ${loss}: `
  if (equal) return `${both}equal`
  const apart = `${both}they differ by ${Math.abs(loss - recorded).toExponential(1)}`
  if (weights.from === 'folder') return `${apart}, since the weights are not those of the run`
  return firstDifference === undefined ? apart : `${apart}; the first step that differs is ${firstDifference}`
}

/** The first words of a text, on one line. */
function shortened(text: string, width: number): string {
  const line = printable(text.trim().replaceAll(/\s+/g, ' '))
  return line.length > width ? `${line.slice(0, width - 3)}...` : line
}
