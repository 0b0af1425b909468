import { choiceOf, quantizationText } from '../config/index.ts'
import { peakMemory } from '../engine/machine.ts'
import type { PreparedDecoder, WantedWeight } from '../session/decoder.ts'
import type { Workload } from '../session/memory-items.ts'
import type { MemoryPlan } from '../session/plan.ts'
import type { PickedPrecision } from '../session/precision.ts'
import { evalBatches, largestMicroBatch, type LargestSize } from '../text/batches.ts'
import { dataBytes, type Dataset, type DatasetSummary } from '../text/dataset.ts'
import { elements } from '../util/shape.ts'
import { formatSize } from '../util/format.ts'
import type { WorkloadConfig } from './config.ts'
import type { TrainEvent } from './events.ts'
import { stateBytes } from './optimizer.ts'
import { layoutOf, orderOf, totalSteps } from './trainer.ts'

/** The workload of a run; `regimeOf` is that of its decoder. */
export function workloadOf(
  config: WorkloadConfig,
  { train, valid }: { readonly train: Dataset; readonly valid: Dataset | undefined },
  regimeOf: PreparedDecoder['regimeOf'],
): Workload {
  const { loadBestModelAtEnd, perDeviceEvalBatchSize } = config
  const order = orderOf(config, train.examples, regimeOf)
  const largest = largestMicroBatch(order, totalSteps(config, train.examples))
  const evaluation = valid && evalBatches(valid.examples, perDeviceEvalBatchSize, layoutOf(config, regimeOf)).largest
  return {
    training: largest.size,
    largest,
    evaluation,
    microBatches: largest.microBatches,
    stateBytes: (name, count) => stateBytes(name, count, config),
    keepsBest: loadBestModelAtEnd,
    data: dataBytes(train.summary) + (valid === undefined ? 0 : dataBytes(valid.summary)),
  }
}

/** The workload of an evaluation. */
export function evaluationWorkload(
  batches: { readonly length: number; readonly largest: LargestSize },
  summary: DatasetSummary,
): Workload {
  return {
    training: undefined,
    evaluation: batches.largest,
    microBatches: batches.length,
    stateBytes: () => 0,
    keepsBest: false,
    data: dataBytes(summary),
  }
}

/** What is reported of a plan. */
export function planEvent(
  prepared: PreparedDecoder,
  plan: MemoryPlan,
  { products, steps }: { readonly products: PickedPrecision; readonly steps: number },
): TrainEvent {
  const { config, quantization, threads } = prepared
  const { expected, items, bound, smaller } = plan
  const count = (weights: readonly WantedWeight[]): number =>
    weights.reduce((total, { shape }) => total + elements(shape), 0)
  const wanted = prepared.wanted(prepared.stages(plan))
  return {
    type: 'plan',
    modelType: config.modelType,
    parameters: count(wanted),
    trainableParameters: count(wanted.filter(({ trainable }) => trainable)),
    steps,
    threads,
    ...choiceOf(plan),
    products: plan.matmulPrecision === products.matmulPrecision ? products.why : 'blocks are on disk',
    quantization: quantization ? quantizationText(quantization) : blocksText(wanted),
    memory: { expected, items, bound, smaller },
  }
}

/** How the frozen weights of blocks are held of a GGUF file that is quantized. */
function blocksText(weights: readonly WantedWeight[]): string | undefined {
  const types = weights.flatMap(({ storage }) =>
    typeof storage === 'object' && storage.kind === 'blocks' ? [storage.type] : [],
  )
  return types.length === 0 ? undefined : `in blocks of GGUF (${[...new Set(types)].toSorted().join(', ')})`
}

/** Share of its bound by which a run may exceed it unnoticed. */
const tolerated = 0.1

/** Passes on the events of a run, and says once when it takes more memory than it is bound to. */
export async function* watchBound(
  { bound, expected, smaller }: MemoryPlan,
  events: AsyncGenerator<TrainEvent>,
): AsyncGenerator<TrainEvent> {
  let reported = bound === undefined
  for await (const event of events) {
    yield event
    if (reported || bound === undefined || (event.type !== 'step' && event.type !== 'eval')) continue
    const peak = peakMemory()
    if (peak <= (1 + tolerated) * bound) continue
    reported = true
    const share = Math.round(100 * (peak / bound - 1))
    const message =
      `this run has taken ${formatSize(peak)} by step ${event.step}, ${share} % more than the ${formatSize(bound)} it is bound to ` +
      `(expected: ${formatSize(expected)}); it continues. What takes less: ${smaller.join('; ')}, or a lower bound`
    yield { type: 'warning', message }
  }
}
