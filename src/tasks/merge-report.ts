import { type Quantization, quantizationText } from '../config/index.ts'
import { findData } from '../hub/resolve.ts'
import { quantizedWeights } from '../model/sources/quantized.ts'
import { openWeights } from '../model/sources/checkpoint.ts'
import { roundedWeights } from '../model/sources/rounded.ts'
import type { WeightSource } from '../model/sources/source.ts'
import { openDecoder, type OpenOptions } from '../session/decoder.ts'
import { openSession } from '../session/session.ts'
import { type EvalBatches, evalBatches } from '../text/batches.ts'
import type { DatasetSummary } from '../train/events.ts'
import { diverge, type Divergence, type Predictions } from '../train/divergence.ts'
import { LowrankError } from '../util/errors.ts'
import { reported, status, type StatusEvent, type TaskContext } from '../util/task.ts'
import { type MergeConfig, type MergeInputs, openMerged } from './merge-inputs.ts'

/** A model of the comparison. */
export interface ComparedModel extends Divergence {
  /** In words: `merged, bf16, quantized to 8 bits`. */
  readonly name: string
}

/** What merging, and what may be done with the merged model, changes in what is predicted. */
export interface MergeComparison {
  /** What the others are compared with: the base with the adapter beside it; several of them, or scaled ones, are merged in f32 instead. */
  readonly reference: 'unmerged' | 'f32'
  readonly labelTokens: number
  /** Label tokens whose logits were compared; loss, accuracy and agreement are those of all. */
  readonly comparedTokens: number
  /** The reference comes first. */
  readonly models: readonly ComparedModel[]
  readonly data: DatasetSummary
}

/** Examples to compare with. */
interface ComparisonData extends AsyncDisposable {
  readonly batches: EvalBatches
  readonly summary: DatasetSummary
}

/** Reads the data before anything is merged, so that what is wrong with them is found first. */
export async function* readComparisonData(
  config: MergeConfig,
  { model, adapters }: MergeInputs,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, ComparisonData> {
  const sources = yield* findData(config.data ?? [], { cancelled })
  const [adapter] = adapters.length === 1 ? adapters : []
  const session = await openSession({ model: model.folder, adapter: adapter?.folder, cancelled })
  try {
    const { examples, summary } = yield* reported((report) => session.read(sources, config, report))
    session.tokenizer.close()
    const batches = evalBatches(examples, config.perDeviceEvalBatchSize)
    return { batches, summary, [Symbol.asyncDispose]: () => session[Symbol.asyncDispose]() }
  } catch (error) {
    await session[Symbol.asyncDispose]()
    throw error
  }
}

interface Comparing {
  readonly config: MergeConfig
  readonly inputs: MergeInputs
  readonly data: ComparisonData
  /** As what the merged model was stored. */
  readonly dtype: string
}

type Opened = Pick<OpenOptions, 'model' | 'adapter' | 'quantization' | 'source'>

const [nf4, int8]: readonly Quantization[] = [
  { kind: '4bit', quantType: 'nf4', doubleQuant: true, blockSize: 64 },
  { kind: '8bit' },
]

/**
 * Compares the merged model, as it was written and as it would be in fewer bits, with the base that has the adapter beside it. One model at a
 * time is in memory.
 *
 * @throws LowrankError `cancelled`: the merged model stays.
 */
export async function* compareMerged(
  { config, inputs, data, dtype }: Comparing,
  { cancelled }: TaskContext,
): AsyncGenerator<StatusEvent, MergeComparison> {
  const { threads } = config
  let reference: Predictions | undefined
  const models: ComparedModel[] = []
  for (const [name, open] of modelsOf(config, inputs, dtype)) {
    yield status(`comparing: ${name}`)
    const { pipeline, close } = await openDecoder({ ...(await open()), threads })
    try {
      const { predictions, ...divergence } = await diverge({ pipeline, batches: data.batches, reference, cancelled })
      reference ??= predictions
      models.push({ name, ...divergence })
    } catch (error) {
      const isCancelled = error instanceof LowrankError && error.code === 'cancelled'
      if (!isCancelled) throw error
      throw new LowrankError('cancelled', `${error.message}; the merged model in ${config.output} is whole`)
    } finally {
      await close()
    }
  }
  if (reference === undefined) throw new LowrankError('data', `${data.summary.path} has no label tokens`)
  return {
    reference: isPlain(inputs) ? 'unmerged' : 'f32',
    labelTokens: reference.labelTokens,
    comparedTokens: reference.logits.length,
    models,
    data: data.summary,
  }
}

/** Whether there is one adapter, with all of its effect: that can be computed without merging it. */
function isPlain({ adapters }: MergeInputs): boolean {
  return adapters.length === 1 && adapters[0]?.scale === 1
}

/** The models to compare, the reference first. */
function modelsOf(
  { output, dtype: asked }: MergeConfig,
  inputs: MergeInputs,
  dtype: string,
): [name: string, open: () => Promise<Opened>][] {
  const { model, adapters, trainedOn } = inputs
  const base: Opened = { model: model.folder, quantization: trainedOn }
  const merged = async (quantization: Quantization | undefined): Promise<WeightSource> =>
    (await openMerged({ ...inputs, quantization })).merged
  const written = (): Promise<WeightSource> => openWeights(output)
  const of = async (source: Promise<WeightSource>): Promise<Opened> => ({ model: output, source: await source })
  const held = trainedOn === undefined ? '' : ` (${quantizationText(trainedOn)})`
  return [
    isPlain(inputs)
      ? [`base${held} + adapter, unmerged`, async () => ({ ...base, adapter: adapters[0]?.folder })]
      : [`base${held} + adapters, merged in f32`, () => of(merged(trainedOn))],
    [`base${held} alone`, async () => base],
    [`merged, as written (${dtype})`, () => of(written())],
    ...(dtype === 'bf16' || asked === 'bf16'
      ? []
      : [['merged, bf16', async () => of(roundedTo('BF16', written()))] as const].map(
          ([name, open]) => [name, open] as [string, () => Promise<Opened>],
        )),
    ['merged, then 8-bit', async () => of(quantizedTo(int8, written()))],
    ['merged, then 4-bit (nf4)', async () => of(quantizedTo(nf4, written()))],
    ...intoOriginal(inputs, () => of(roundedTo('BF16', merged(undefined)))),
  ]
}

/** Into the weights that the model has, where the adapter was trained on others. */
function intoOriginal(
  { quantization }: MergeInputs,
  open: () => Promise<Opened>,
): [name: string, open: () => Promise<Opened>][] {
  return quantization === undefined ? [] : [['merged into the original weights, bf16', open]]
}

async function roundedTo(dtype: 'BF16', source: Promise<WeightSource>): Promise<WeightSource> {
  return roundedWeights(await source, dtype)
}

async function quantizedTo(
  quantization: Quantization | undefined,
  given: Promise<WeightSource>,
): Promise<WeightSource> {
  const source = await given
  return quantization === undefined ? source : quantizedWeights(source, quantization, () => false)
}
