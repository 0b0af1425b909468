import type { MemoryChoice } from '../config/index.ts'
import { canSlice, slicedAs } from '../storage/in-slices.ts'
import { isFloatStorage, type Storage } from '../storage/stored.ts'

/** What of a choice decides how weights are held. */
export type StorageChoice = Pick<MemoryChoice, 'expandWeights'> &
  Partial<Pick<MemoryChoice, 'streamed' | 'matmulPrecision'>>

/** What of a choice decides which programs there are. */
export type ProgramChoice = StorageChoice & Pick<MemoryChoice, 'activations'>

/** Equal for choices of the same programs. */
export function programKey({ activations, expandWeights, streamed, matmulPrecision }: ProgramChoice): string {
  return [activations, expandWeights, streamed !== undefined, matmulPrecision].join()
}

/** How a frozen weight is held that is stored so; `linear`: whether blocks multiply by it. */
export function heldAs(
  stored: Storage,
  linear: boolean,
  { expandWeights, streamed, matmulPrecision }: StorageChoice,
): Storage {
  // Blocks on disk would be cut anew each time they are read.
  if (matmulPrecision === 'high' && linear && streamed === undefined && canSlice(stored)) {
    return slicedAs(stored, expandWeights ? 2 : 1)
  }
  return expandWeights && isFloatStorage(stored) ? 'F32' : stored
}
