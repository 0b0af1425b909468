import { join } from 'node:path'
import type { Quantization } from '../../config/index.ts'
import { availableMemory, defaultThreads } from '../../engine/machine.ts'
import { ModelFile } from '../../engine/onnxruntime/model-file.ts'
import { floats, type HostTensor } from '../../engine/onnxruntime/runtime.ts'
import type { DecoderConfig } from '../../model/decoder.ts'
import { openGeneration } from '../../session/generation.ts'
import { loadTokenizer } from '../../text/tokenizer.ts'
import { internalError } from '../../util/errors.ts'
import type { Checked } from '../exporter.ts'
import { compareLogits, probeTexts } from '../probe.ts'
import { checkDataFile } from './data-files.ts'
import { cacheNames } from './decoder.ts'
import { graphFolder, onnxForms, type OnnxExport, planOf, stepOf } from './write.ts'
import { byteLength } from './tensors.ts'

/** Runs a model of the form that is written, step by step, over one text or several of the same length. */
export class FileRunner {
  readonly #file: ModelFile
  readonly #config: DecoderConfig
  #cache: Readonly<Record<string, HostTensor>> | undefined
  #masks: readonly (readonly number[])[] = []

  constructor(file: ModelFile, config: DecoderConfig) {
    this.#file = file
    this.#config = config
  }

  /** New tokens of each row, undefined where there is none (only on the left). -> logits [rows * seq, vocabulary] */
  async step(rows: readonly (readonly (number | undefined)[])[]): Promise<Float32Array> {
    const before = this.#masks[0]?.length ?? 0
    this.#masks = rows.map((row, i) => [...(this.#masks[i] ?? []), ...row.map((id) => (id === undefined ? 0 : 1))])
    const positions = this.#masks.map((mask) => {
      let next = 0
      return mask.map((one) => (one === 1 ? next++ : 1)).slice(before)
    })
    const results = await this.#file.run({
      input_ids: integers(rows.map((row) => row.map((id) => id ?? 0))),
      attention_mask: integers(this.#masks),
      position_ids: integers(positions),
      ...(this.#cache ?? this.#empty(rows.length)),
    })
    this.#cache = Object.fromEntries(
      this.#config.layers.flatMap((_, layer) =>
        (['key', 'value'] as const).map((kind) => {
          const { past, present } = cacheNames(layer, kind)
          const tensor = results[present]
          if (tensor === undefined) throw internalError(`no result ${present}`)
          return [past, tensor] as const
        }),
      ),
    )
    return floats(results['logits'])
  }

  #empty(rows: number): Record<string, HostTensor> {
    const { layers, numKeyValueHeads, headDim } = this.#config
    const nothing: HostTensor = { dtype: 'f32', shape: [rows, numKeyValueHeads, 0, headDim], data: new Float32Array() }
    return Object.fromEntries(
      layers.flatMap((_, layer) => (['key', 'value'] as const).map((kind) => [cacheNames(layer, kind).past, nothing])),
    )
  }
}

function integers(rows: readonly (readonly number[])[]): HostTensor {
  const [first = []] = rows
  return { dtype: 'i64', shape: [rows.length, first.length], data: BigInt64Array.from(rows.flat(), BigInt) }
}

/** How many tokens of a text come one by one, after the others at once. */
const single = 3

/** By how much logits may differ: in f32 this, or this part of the largest of them; in nats where weights were rounded. */
const [mostInF32, mostOfLargest] = [1e-3, 5e-5]
// Bytes are compared anyway: what is far off was written for another kernel.
const mostDivergence = { f16: 1e-3, q8_0: 2, q4_0: 2 }

interface CheckOptions extends OnnxExport {
  readonly quantization: Quantization | undefined
  readonly threads: number | undefined
  readonly report: (message: string) => void
}

/**
 * Reads what was written: every byte of the weights, and the logits of some texts, which the runtime computes from the file and our decoder
 * from model and adapter, the last tokens one after the other.
 *
 * @throws LowrankError `internal`: something else was written.
 */
export async function checkOnnx(options: CheckOptions, folder: string): Promise<Checked> {
  const { dtype, source, report } = options
  const { files } = planOf(options)
  report('checking: every tensor')
  let tensors = 0
  for (const file of files) tensors += await checkDataFile(join(folder, graphFolder), file, stepOf(options))
  const path = join(folder, graphFolder, onnxForms[dtype].file)
  const expanded = files.flatMap((file) => file.tensors).reduce((total, one) => total + expandedBytes(one), 0)
  if (expanded > 0.7 * availableMemory()) {
    report('the logits are not checked: the model takes more memory than is free')
    return { tensors }
  }
  report('checking: logits of the file, beside those of model and adapter')
  // Each beginning of a text is a text.
  const { ids, logits: wanted } = await ownLogits(options)
  const found = await fileLogits(path, source.config, ids, options)
  const { largestLogit, ...logits } = compareLogits(wanted, found)
  const wrong =
    !Number.isFinite(logits.largestDifference) ||
    (dtype === 'f32'
      ? logits.largestDifference > Math.max(mostInF32, mostOfLargest * largestLogit)
      : logits.divergence > mostDivergence[dtype])
  if (wrong) {
    throw internalError(
      `${path} computes something else: logits differ by up to ${logits.largestDifference}, ${logits.divergence} nats`,
    )
  }
  return { tensors, logits }
}

/** Memory that a runtime takes for a tensor: floats become f32. */
function expandedBytes(tensor: Parameters<typeof byteLength>[0]): number {
  return byteLength(tensor) * (tensor.dtype === 'f16' ? 2 : 1)
}

/** Sizes of the pieces in which the tokens of a text are given. */
function pieces(ids: readonly number[]): number[][] {
  const first = Math.max(1, ids.length - single)
  return [ids.slice(0, first), ...ids.slice(first).map((id) => [id])]
}

/** Logits of every position, by our decoder. */
async function ownLogits(
  options: CheckOptions,
): Promise<{ readonly ids: readonly number[][]; readonly logits: readonly Float32Array[] }> {
  const { model, adapter: folder, quantization, threads, cancelled } = options
  const tokenizer = await loadTokenizer(model, { cancelled })
  const ids = await tokenizer
    .encode(probeTexts)
    .then((texts) => texts.map((text) => [...tokenizer.prefix, ...text]))
    .finally(() => tokenizer.close())
  const generation = await openGeneration({ model, quantization, threads })
  try {
    const adapter = folder === undefined ? undefined : await generation.adapter(folder)
    const logits: Float32Array[] = []
    for (const text of ids) {
      const cache = generation.decoder.newCache()
      for (const piece of pieces(text)) {
        stepOf(options)()
        const run = { ids: Int32Array.from(piece), adapters: [adapter], logits: 'all' } as const
        logits.push(...byPosition(await generation.decoder.run(cache, run), piece.length))
      }
    }
    return { ids, logits }
  } finally {
    await generation.close()
  }
}

async function fileLogits(
  path: string,
  config: DecoderConfig,
  ids: readonly number[][],
  options: CheckOptions,
): Promise<Float32Array[]> {
  const file = await ModelFile.open(path, { threads: options.threads ?? defaultThreads() })
  try {
    const logits: Float32Array[] = []
    for (const text of ids) {
      const runner = new FileRunner(file, config)
      for (const piece of pieces(text)) {
        stepOf(options)()
        logits.push(...byPosition(await runner.step([piece]), piece.length))
      }
    }
    return logits
  } finally {
    await file.close()
  }
}

function byPosition(logits: Float32Array | undefined, positions: number): Float32Array[] {
  if (logits === undefined) throw internalError('a decoder without logits')
  const width = logits.length / positions
  return Array.from({ length: positions }, (_, i) => logits.subarray(i * width, (i + 1) * width))
}
