import { llama } from './llama.ts'
import type { Decoder, FamilyName } from '../decoder.ts'

/** The decoder of each `model_type`. A new family is a file and a line here. */
export const families: Readonly<Record<FamilyName, Decoder>> = { llama }
