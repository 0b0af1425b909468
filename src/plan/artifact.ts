import { checkpointBytes } from '../formats/checkpoint.ts'
import { safetensorsBytes } from '../formats/safetensors.ts'
import { weightsName } from '../model/peft/adapter.ts'
import { savedDtype, type SaveOptions } from '../export/save.ts'
import type { PreparedDecoder, WantedWeight } from '../session/decoder.ts'

/** A file that a run leaves. */
export interface ArtifactFile {
  readonly name: string
  readonly bytes: number
}

/** The files of weights that a run writes, to the byte: those of an adapter, or of a whole model. */
export function artifactOf(
  prepared: PreparedDecoder,
  trained: readonly WantedWeight[],
  { saveDtype, maxShardSize }: Pick<SaveOptions, 'saveDtype' | 'maxShardSize'>,
): readonly ArtifactFile[] {
  const { fileName } = prepared.adaptation
  const storage = (name: string): ReturnType<SaveOptions['storage']> => prepared.savedAs(name)
  const tensors = trained.map(({ name, shape }) => ({
    name: fileName(name),
    shape,
    dtype: prepared.lora === undefined ? savedDtype(name, { saveDtype, storage }) : ('F32' as const),
  }))
  if (prepared.lora !== undefined) return [{ name: weightsName, bytes: safetensorsBytes(tensors, { format: 'pt' }) }]
  const files = checkpointBytes([...tensors, ...prepared.beside], { maxShardBytes: maxShardSize })
  return [...files].map(([name, bytes]) => ({ name, bytes }))
}
