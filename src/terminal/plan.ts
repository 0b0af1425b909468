import type { PlannedVariant, PlanResult } from '../plan/result.ts'
import { count, duration, formatSize, plural } from '../util/format.ts'
import { table, wrap } from './format.ts'

/** A plan as a page of `width` columns, at most 100. */
export function planLines(result: PlanResult, width: number): string[] {
  const { model, modelType, parameters, machine, work, variants, refused, recommendation, prices } = result
  const columns = Math.min(100, width)
  const { kind, bytes, given } = machine
  const room = `${formatSize(bytes)} of ${kind === 'gpu' ? 'a GPU' : 'memory'}${given ? '' : ', which a run may take here now'}`
  const costs = variants.some(({ cost }) => cost !== undefined)
  const times = variants.some(({ time }) => time !== undefined)
  const titles = ['method', 'form', 'trained', 'memory', 'fits', 'largest', 'result']
  if (times) titles.push('step', ...(work.steps === undefined ? [] : ['all steps']))
  const currency = variants.find(({ cost }) => cost !== undefined)?.cost?.currency ?? ''
  if (costs) titles.push(`cost ${currency}`.trim())
  const rows = variants.map((variant) => rowOf(variant, { times, costs, steps: work.steps }))
  const chosen = variants.find(
    ({ method, activations }) => method === recommendation.method && activations === recommendation.activations,
  )
  const lines = [
    `${model}: ${modelType}, ${count(parameters)} weights; ${room}`,
    workText(work),
    '',
    ...table(titles, rows),
    ...refused.map(({ method, why }) => `${method}: not possible: ${why}`),
    ...(kind === 'ram' ? notStreamed(variants) : []),
  ]
  if (chosen !== undefined) {
    lines.push('', `memory of ${chosen.method}, ${chosen.activations}`)
    const parts = chosen.memory.items.map(({ what, bytes: size }) => [`  ${what}`, formatSize(size)])
    lines.push(...table(['  part', 'size'], parts))
  }
  const title = chosen === undefined ? 'no recommendation' : `take ${chosen.method}, ${wordOf(chosen)}`
  lines.push('', title, ...recommendation.reasons.flatMap((reason) => listed(reason, columns)))
  const notes = [
    ...(machine.formula === undefined ? [] : [`memory of a GPU: ${machine.formula}`]),
    ...(costs && prices !== undefined
      ? [
          `cost: of the cheapest machine with enough memory, at this machine's speed; prices of ${prices.date}. ${prices.source}`,
        ]
      : []),
  ]
  if (notes.length > 0) lines.push('', ...notes.flatMap((note) => wrap(note, columns)))
  return lines.flatMap((line) => (line.length > columns ? wrap(line, columns) : [line]))
}

/** Why methods have no form with blocks on disk. */
function notStreamed(variants: readonly PlannedVariant[]): string[] {
  const methods = new Set(variants.map(({ method }) => method))
  const without = [...methods].filter((method) => {
    return !variants.some((one) => one.method === method && one.activations === 'streamed')
  })
  const [trained, quantized] = [
    without.filter((one) => one === 'full'),
    without.filter((one) => one.startsWith('qlora')),
  ]
  return [
    ...(trained.length === 0 ? [] : ['full: blocks cannot stay on disk, since they are trained']),
    ...(quantized.length === 0
      ? []
      : [
          `${quantized.join(', ')}: blocks cannot stay on disk, since they would be quantized each time they are read; with a base that is ` +
            'quantized first (lowrank quantize) they can',
        ]),
  ]
}

function rowOf(
  { method, activations, trainableParameters, memory, fits, largest, artifact, time, cost }: PlannedVariant,
  shown: { readonly times: boolean; readonly costs: boolean; readonly steps: number | undefined },
): string[] {
  const row = [
    method,
    activations,
    trainableParameters < 1e9 ? count(trainableParameters) : `${(trainableParameters / 1e9).toFixed(2)} B`,
    formatSize(memory.expected),
    fits ? 'yes' : 'no',
    largest === undefined ? '-' : `${largest.batch} x ${largest.length}`,
    formatSize(artifact.bytes),
  ]
  if (shown.times) row.push(time === undefined ? '-' : stepText(time.stepSeconds))
  if (shown.times && shown.steps !== undefined) row.push(time?.seconds === undefined ? '-' : duration(time.seconds))
  if (shown.costs) row.push(cost === undefined ? '-' : cost.amount.toFixed(2))
  return row
}

function stepText(seconds: number): string {
  return seconds < 10 ? `${seconds.toFixed(2)} s` : duration(seconds)
}

function workText({ steps, examples, tokens, longest, batch, accumulation }: PlanResult['work']): string {
  const each = `${batch} x ${accumulation} examples a step`
  const of =
    examples === undefined
      ? `examples of ${count(longest)} tokens`
      : `${plural(examples, 'example')}, ${count(tokens ?? 0)} tokens, the longest ${count(longest)}`
  return `${of}; ${each}${steps === undefined ? '' : `, ${plural(steps, 'step')}`}`
}

function wordOf({ activations }: PlannedVariant): string {
  return { keep: 'activations kept', recompute: 'activations recomputed', streamed: 'blocks on disk' }[activations]
}

function listed(text: string, width: number): string[] {
  return wrap(text, width - 2).map((line, i) => (i === 0 ? `- ${line}` : `  ${line}`))
}
