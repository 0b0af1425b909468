import { readOptions, replaySchema } from '../config/index.ts'
import type { ReplayResult } from '../tasks/replay.ts'
import { number, plural, printable, table } from './format.ts'
import { widthOf, type Invocation } from './io.ts'

/** `lowrank replay RUN --step K`: a step of an earlier run, computed again, with the loss of each of its examples. */
export async function replay({ sources, positionals, json, io, signal, loadApi }: Invocation): Promise<void> {
  const [run = ''] = positionals
  const options = readOptions(replaySchema, sources)
  const api = await loadApi()
  const onStatus = (message: string): unknown => io.stderr.write(`${message}\n`)
  const result = await api.replay(run, options, { signal, onStatus })
  const lines = json ? [JSON.stringify(result)] : replayLines(result, widthOf(io.stdout))
  io.stdout.write(`${lines.join('\n')}\n`)
}

/** A replayed step: where its weights come from, its loss beside the recorded one, and a table of its examples. */
export function replayLines(result: ReplayResult, width: number): string[] {
  const { step, epoch, examples, microBatches, labelTokens } = result
  const counts = [plural(examples.length, 'example'), `${microBatches} micro-batch${microBatches === 1 ? '' : 'es'}`]
  const rows = examples.map((example) => [
    String(example.line),
    String(example.microBatch),
    String(example.tokens),
    String(example.labelTokens),
    number(example.loss),
  ])
  const lines = table(['line', 'micro-batch', 'tokens', 'labels', 'loss'], rows)
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
