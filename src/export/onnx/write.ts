import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../../formats/atomic.ts'
import type { DecoderConfig } from '../../model/decoder.ts'
import type { WeightSource } from '../../model/sources/source.ts'
import { LowrankError } from '../../util/errors.ts'
import { configFiles } from './config-files.ts'
import { type DataFile, placed, writeDataFile } from './data-files.ts'
import { type FileDecoder, fileDecoder, type WeightForm } from './decoder.ts'
import { onnxModel } from './graph.ts'
import { fileTensors } from './tensors.ts'

/** How weights may be stored: by the names of dtypes and files that transformers.js has. */
export const onnxForms = {
  f32: { form: 'f32', dtype: 'fp32', file: 'model.onnx' },
  f16: { form: 'f16', dtype: 'fp16', file: 'model_fp16.onnx' },
  q8_0: { form: { bits: 8 }, dtype: 'q8', file: 'model_quantized.onnx' },
  q4_0: { form: { bits: 4 }, dtype: 'q4', file: 'model_q4.onnx' },
} as const satisfies Record<string, { readonly form: WeightForm; readonly dtype: string; readonly file: string }>

export type OnnxDtype = keyof typeof onnxForms

/** The folder of a model in which programs look for its graphs. */
export const graphFolder = 'onnx'

export interface OnnxExport {
  /** The weights that are written. */
  readonly source: WeightSource
  /** Folder or GGUF file of the base, and folder of the adapter that is merged into it: their small files are written beside. */
  readonly model: string
  readonly adapter: string | undefined
  readonly dtype: OnnxDtype
  readonly cancelled: () => boolean
  readonly mostDataBytes?: number | undefined
}

/** What an export is made of. */
interface Plan {
  readonly decoder: FileDecoder
  readonly files: readonly DataFile[]
}

export function planOf({ source, dtype, mostDataBytes }: OnnxExport): Plan {
  refuseUnknown(source.config)
  const { form, file } = onnxForms[dtype]
  const decoder = fileDecoder(source.config, form)
  return { decoder, files: placed(fileTensors(source, decoder, form), file, mostDataBytes) }
}

/**
 * Writes a model as a folder that transformers.js and onnxruntime-genai load: the files of weights, the graph that names them, the small
 * files, and config.json last, without which no folder is taken for a model. Each appears whole or not at all.
 *
 * @returns the files and their bytes, and what whoever uses it has to know.
 * @throws LowrankError `config`: a number is too large for the dtype; `io`: it cannot be written.
 */
export async function writeOnnx(
  options: OnnxExport,
  folder: string,
): Promise<{
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
  readonly notes: readonly string[]
}> {
  const { source, dtype } = options
  const { config } = source
  const { decoder, files } = planOf(options)
  const { file } = onnxForms[dtype]
  const small = await configFiles(options, { config, ...onnxForms[dtype], dataFiles: files.length })
  const graph = onnxModel(
    config,
    decoder,
    files.flatMap(({ tensors }) => tensors),
  )
  await mkdir(join(folder, graphFolder), { recursive: true })
  const written: { name: string; bytes: number }[] = []
  for (const one of files) {
    await writeDataFile(join(folder, graphFolder), one, stepOf(options))
    written.push({ name: join(graphFolder, one.name), bytes: one.bytes })
  }
  for (const [name, contents] of [[join(graphFolder, file), graph] as const, ...small.files]) {
    await writeFileAtomic(join(folder, name), contents)
    written.push({ name, bytes: Buffer.byteLength(contents) })
  }
  return { files: written, notes: [...notesOf(config), ...small.notes] }
}

/** Throws where the export is no longer wanted. */
export function stepOf({ cancelled }: Pick<OnnxExport, 'cancelled'>): () => void {
  return () => {
    if (cancelled()) throw new LowrankError('cancelled', 'the export was cancelled')
  }
}

/** Elements of the largest tables of cosines that are written: those of a million positions of 128 channels. */
const mostTable = 2 ** 26

/** @throws LowrankError `model`: what the graph would have to hold is out of proportion. */
function refuseUnknown({ modelType, layers, maxPositionEmbeddings }: DecoderConfig): void {
  const widest = Math.max(...layers.map(({ rope }) => (rope?.channels ?? 0) / 2))
  if (maxPositionEmbeddings * widest <= mostTable) return
  throw new LowrankError(
    'model',
    `this ${modelType} model has max_position_embeddings ${maxPositionEmbeddings}: ONNX holds the angles of all positions`,
    {
      hint: 'Lower max_position_embeddings in config.json to the length that is used, or write another form: --to gguf.',
    },
  )
}

function notesOf({ layers, maxPositionEmbeddings: most }: DecoderConfig): string[] {
  const kinds = new Set(layers.map(({ rope }) => rope?.scaling.type))
  return [
    ...(kinds.has('dynamic')
      ? [`positions beyond ${most}, for which dynamic scaling would change all angles, are refused`]
      : []),
    ...(kinds.has('longrope') ? ['positions are scaled by the length that a text has so far, as in transformers'] : []),
  ]
}
