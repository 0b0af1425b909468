import type { MemoryChoice } from '../config/index.ts'
import { canSlice, slicedAs } from '../storage/in-slices.ts'
import { isFloatStorage, type Storage } from '../storage/stored.ts'

/** What of a choice decides how weights are held. */
export type StorageChoice = Pick<MemoryChoice, 'expandWeights'> & Partial<Pick<MemoryChoice, 'matmulPrecision'>>

/** What of a choice decides which programs there are. */
export type ProgramChoice = StorageChoice & Pick<MemoryChoice, 'activations'>

/** Equal for choices of the same programs. */
export function programKey({ activations, expandWeights, matmulPrecision }: ProgramChoice): string {
  return [activations, expandWeights, matmulPrecision].join()
}

/** How a frozen weight is held that is stored so; `linear`: whether blocks multiply by it. */
export function heldAs(stored: Storage, linear: boolean, { expandWeights, matmulPrecision }: StorageChoice): Storage {
  if (matmulPrecision === 'high' && linear && canSlice(stored)) return slicedAs(stored, expandWeights ? 2 : 1)
  return expandWeights && isFloatStorage(stored) ? 'F32' : stored
}
