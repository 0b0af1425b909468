import { basename } from 'node:path'
import { configOf, type WrittenConfig, writtenConfig } from '../../formats/gguf/config.ts'
import { hasTokenizer } from '../../formats/gguf/tokenizer.ts'
import { tokenizerMetadata } from '../../formats/gguf/tokenizer-write.ts'
import { type GgufDraft, type GgufTensorSource, readDraft, writeGguf } from '../../formats/gguf/write.ts'
import { parseDecoderConfig } from '../../model/config.ts'
import type { DecoderConfig } from '../../model/decoder.ts'
import type { WeightSource } from '../../model/sources/source.ts'
import { bytesOf } from '../../util/dtype.ts'
import { internalError, LowrankError } from '../../util/errors.ts'
import { type Checked, type Exporter, type ExportInput, using } from '../exporter.ts'
import { compareLogits, probeLogits } from '../probe.ts'
import { checkModelTensors, checkTokens } from './check.ts'
import { differenceBetween } from './same-decoder.ts'
import { fileTypeOf, modelTensors, typeOf } from './tensors.ts'
import { givenTokenizer } from './tokenizer.ts'

/** A whole model in one GGUF file, for llama.cpp and all that is built on it: the base, or the base with the adapter added in f32. */
export const gguf: Exporter = {
  makes: 'file',
  needs: ['model'],
  dtypes: ['f16', 'f32', 'bf16', 'q8_0', 'q4_0'],
  extension: '.gguf',
  write: async (input, path) => {
    return using(await input.weights(), async (source) => {
      const { draft, notes } = await draftOf(input, source)
      input.report(`writing ${draft.tensors.length} tensors`)
      const bytes = await writeGguf(path, draft)
      return { files: [{ name: basename(path), bytes }], notes }
    })
  },
  check: checkModel,
}

export function neededModel({ model }: ExportInput): string {
  if (model === undefined) throw internalError('an export without the model that it needs')
  return model
}

/** What the file is to hold. */
async function draftOf(
  input: ExportInput,
  source: WeightSource,
): Promise<{ readonly draft: GgufDraft; readonly notes: readonly string[] }> {
  const { dtype, cancelled } = input
  const model = neededModel(input)
  const { config } = source
  const written = describedBy(config, model)
  const tokenizer = await givenTokenizer({ ...input, model }, config.vocabSize)
  const step = (): void => {
    if (cancelled()) throw new LowrankError('cancelled', 'the export was cancelled')
  }
  const { architecture } = written
  const draft: GgufDraft = {
    metadata: {
      ...written.metadata,
      'general.type': ['text', 'model'],
      'general.name': ['text', nameFor(input.name, config)],
      'general.file_type': ['u32', fileTypeOf(dtype)],
      'general.quantization_version': ['u32', 2],
      ...tokenizerMetadata(tokenizer),
    },
    tensors: [...modelTensors(source, { architecture, dtype, step }), ...listTensors(written.tensors)],
  }
  await checkSame(draft, config, model)
  const odd = source.specs.filter(
    (spec) => ['q8_0', 'q4_0'].includes(dtype) && typeOf(spec, config, dtype) === 'F16',
  ).length
  return {
    draft,
    notes: [
      ...(odd === 0 ? [] : [`${odd} matrices have rows that are no whole blocks of 32, and are stored in F16`]),
      ...(config.trunk === 'model' ? [] : ['only the part for texts is written: what sees images is not']),
      ...(tokenizer.templates.size === 0 ? ['the model has no chat template'] : []),
      ...(tokenizer.ends.length > 3
        ? [`of ${tokenizer.ends.length} tokens that end a text, GGUF has a place for 3`]
        : []),
    ],
  }
}

/** llama.cpp knows by the name that tokens of Phi 3 take the space behind them. */
function nameFor(name: string, { modelType }: DecoderConfig): string {
  return modelType === 'phi3' && !/phi-?3/i.test(name) ? `${name} (Phi-3)` : name
}

/** @throws LowrankError `model`: llama.cpp has no architecture for it. */
export function describedBy(config: DecoderConfig, model: string): WrittenConfig {
  const written = writtenConfig(config)
  if (written !== undefined) return written
  throw new LowrankError(
    'model',
    `${model}: model_type "${config.modelType}" has no architecture of GGUF that is known`,
    {
      hint: 'Write it as safetensors instead: --to merged, or --to peft for the adapter alone.',
    },
  )
}

/**
 * Reads what is to be written as a model is read, before a byte of it is.
 *
 * @throws LowrankError `model`: the file would compute something else, since GGUF has no way to say it.
 */
async function checkSame(draft: GgufDraft, config: DecoderConfig, model: string): Promise<void> {
  const contents = readDraft(model, draft)
  if (!hasTokenizer(contents)) throw internalError('a GGUF file without tokenizer')
  const read = parseDecoderConfig(await configOf(contents), model)
  const difference = differenceBetween(config, read)
  if (difference === undefined) return
  throw new LowrankError(
    'model',
    `${model}: GGUF cannot say what this ${config.modelType} model computes: ${difference}`,
    { hint: 'llama.cpp would compute something else in silence. Write it as safetensors: --to merged.' },
  )
}

function listTensors(lists: WrittenConfig['tensors']): GgufTensorSource[] {
  return Object.entries(lists).map(([name, values]) => ({
    name,
    type: 'F32',
    shape: [values.length],
    data: (write) => write(bytesOf(Float32Array.from(values))),
  }))
}

/** By how much logits may differ: the largest of them times this in f32; in nats where weights were rounded. */
const [mostInF32, mostDivergence] = [2e-4, { f16: 1e-3, bf16: 2e-2 }]

/** Compares a file with what was to be in it: every weight, tokens of hard texts, and the logits of some. */
export async function checkModel(input: ExportInput, path: string): Promise<Checked> {
  const { dtype, adapter, quantization, threads, cancelled } = input
  const model = neededModel(input)
  input.report('checking: every tensor')
  const tensors = await using(await input.weights(), (source) =>
    checkModelTensors(path, source, { ...input, architecture: describedBy(source.config, model).architecture }),
  )
  const texts = await checkTokens(path, model, cancelled)
  input.report('checking: logits of the file, beside those of model and adapter')
  const wanted = await probeLogits({ model, adapter, quantization, threads, cancelled })
  const found = await probeLogits({ model: path, threads, cancelled })
  const { largestLogit, ...logits } = compareLogits(wanted, found)
  const bound = dtype === 'f16' || dtype === 'bf16' ? mostDivergence[dtype] : undefined
  const wrong =
    !Number.isFinite(logits.largestDifference) ||
    (dtype === 'f32' && logits.largestDifference > mostInF32 * largestLogit) ||
    (bound !== undefined && logits.divergence > bound)
  if (wrong) {
    throw internalError(
      `${path} computes something else: logits differ by up to ${logits.largestDifference}, ${logits.divergence} nats`,
    )
  }
  return { tensors, texts, logits }
}
