import type { Family, FamilyName } from '../decoder.ts'
import { gemma2 } from './gemma2.ts'
import { gemma3, gemma3WithImages } from './gemma3.ts'
import { granite } from './granite.ts'
import { llama } from './llama.ts'
import { mistral } from './mistral.ts'
import { olmo2 } from './olmo2.ts'
import { phi3 } from './phi3.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { smollm3 } from './smollm3.ts'

/** The family of each `model_type`. A new one is a file and a line here. */
export const families: Readonly<Record<FamilyName, Family>> = {
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
  gemma3_text: gemma3,
  gemma3: gemma3WithImages,
  phi3,
  smollm3,
  olmo2,
  granite,
}
