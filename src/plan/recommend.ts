import { count, formatSize, percent } from '../util/format.ts'
import type { Place, PlanMethod } from './methods.ts'
import type { PlannedVariant, PlanResult } from './result.ts'

/** What is known of the purpose. */
export interface Purpose {
  /** Many adapters beside one base, or one model. */
  readonly deploy: 'adapters' | 'model' | undefined
  /** What the model has to learn. */
  readonly learns: 'task' | 'tokens' | 'architecture'
}

/**
 * The order in which forms are taken. LoRA on the base as it is has no quantization gap; of the quantized ones 8 bits have the least. What
 * reads blocks from disk in each pass comes last of the adapters, and what trains every weight only where nothing else is asked for.
 */
const order: readonly (readonly [PlanMethod, Place])[] = [
  ['lora', 'keep'],
  ['lora', 'recompute'],
  ['qlora-8bit', 'keep'],
  ['qlora-8bit', 'recompute'],
  ['qlora', 'keep'],
  ['qlora', 'recompute'],
  ['qlora-fp4', 'keep'],
  ['qlora-fp4', 'recompute'],
  ['lora', 'streamed'],
  ['qlora-8bit', 'streamed'],
  ['qlora', 'streamed'],
  ['qlora-fp4', 'streamed'],
  ['full', 'keep'],
  ['full', 'recompute'],
]

/** The form of training to take, and why: the first that fits of those that serve the purpose, what is faster first. */
export function recommend(
  variants: readonly PlannedVariant[],
  budget: number,
  { deploy, learns }: Purpose,
): PlanResult['recommendation'] {
  const fitting = variants.filter(({ fits }) => fits)
  const reasons: string[] = []
  const needsFull = learns === 'architecture'
  const choice = order
    .filter(([method]) => !needsFull || method === 'full')
    .flatMap(([method, place]) => fitting.filter((one) => one.method === method && one.activations === place))[0]
  if (learns === 'architecture') {
    reasons.push(
      'a changed architecture has weights that no adapter can stand for: every weight is trained (method full)',
    )
  }
  if (learns === 'tokens') {
    reasons.push(
      'rows of new tokens are trained in full: method full, or an adapter with modulesToSave embed_tokens (and lm_head), which saves them whole beside it',
    )
  }
  if (choice === undefined) {
    const smallest = variants.toSorted((a, b) => a.memory.expected - b.memory.expected)[0]
    const what = needsFull ? 'method full does not fit' : 'nothing fits'
    reasons.push(
      smallest === undefined
        ? 'no method of those asked for can train this model'
        : `${what} into ${formatSize(budget)}: the smallest, ${name(smallest)}, takes ${formatSize(smallest.memory.expected)}; a smaller perDeviceTrainBatchSize or maxLength takes less`,
    )
    return { method: undefined, activations: undefined, reasons }
  }
  const { method, activations, memory, artifact, trainableParameters } = choice
  reasons.push(`${formatSize(memory.expected)} of ${formatSize(budget)}: ${activationReason(choice, variants)}`)
  const full = variants.find((variant) => variant.method === 'full')
  if (method === 'full') {
    reasons.push(`the result is a model of ${formatSize(artifact.bytes)}, to be served by itself`)
  } else {
    const share =
      full === undefined ? '' : ` (${percent(trainableParameters / full.trainableParameters, 2)} of all weights)`
    reasons.push(
      `${count(trainableParameters)} weights are trained${share}; each adapter is ${formatSize(artifact.bytes)}` +
        (full === undefined ? '' : `, a whole model ${formatSize(full.artifact.bytes)}`) +
        (deploy === 'adapters' ? ': many of them share one base in memory' : ''),
    )
    if (deploy === 'model')
      reasons.push('lowrank merge makes one model of base and adapter, which is served like any other')
  }
  reasons.push(...qualityReasons(choice, variants))
  return { method, activations, reasons }
}

function activationReason({ method, activations }: PlannedVariant, variants: readonly PlannedVariant[]): string {
  const kept = variants.find((variant) => variant.method === method && variant.activations === 'keep')
  if (activations === 'keep') return 'activations can be kept, so nothing is computed twice'
  const without = kept === undefined ? '' : ` (kept, they take it to ${formatSize(kept.memory.expected)})`
  return activations === 'recompute'
    ? `activations are computed again${without}`
    : 'blocks stay on disk and are read in each pass; nothing else of this method fits'
}

function qualityReasons({ method }: PlannedVariant, variants: readonly PlannedVariant[]): string[] {
  const lora = variants.filter((variant) => variant.method === 'lora')
  const leaves = 'docs/methods.md has losses side by side'
  if (method === 'lora') {
    return [
      `the base keeps its precision: no loss of quality by quantization; method full may learn more where the data is large and far from what the model knows (${leaves})`,
    ]
  }
  if (method === 'full') return ['every weight can move: what is learned is not bound to a low rank']
  const least = lora.toSorted((a, b) => a.memory.expected - b.memory.expected)[0]
  const why = least === undefined ? '' : `, where lora takes at least ${formatSize(least.memory.expected)}`
  const size = method === 'qlora-8bit' ? '8 bits' : '4 bits'
  return [`the base is held in ${size}${why}; its loss is somewhat higher than that of the unquantized one (${leaves})`]
}

function name({ method, activations }: PlannedVariant): string {
  return `${method}, ${activations}`
}
