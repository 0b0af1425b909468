import leven from 'leven'
import { isJsonObject } from '../formats/json.ts'
import { openModelFiles } from '../formats/model-files.ts'
import { modelFolderHint } from '../formats/model-folder.ts'
import { LowrankError } from '../util/errors.ts'
import type { DecoderConfig, FamilyName, Refuse } from './decoder.ts'
import { modelTypeOf, notADecoder } from './families/describe.ts'
import { families } from './families/index.ts'
import { expertsOf } from './families/foreign-keys.ts'
import { useFloats } from './bitsandbytes/config.ts'

/** Reads and checks the `config.json` of a model: a folder, or a GGUF file. */
export async function readDecoderConfig(model: string): Promise<DecoderConfig> {
  const files = await openModelFiles(model)
  return parseDecoderConfig(await files.json('config.json', { hint: modelFolderHint }), files.where('config.json'))
}

/** `file` is named in errors only. */
export function parseDecoderConfig(json: unknown, file: string): DecoderConfig {
  const refuse: Refuse = (message, hint) => {
    throw new LowrankError('model', `${file}: ${message}`, { hint })
  }
  const object = isJsonObject(json) ? json : refuse('the file: found no object', notADecoder)
  const name = modelTypeOf(object, refuse)
  const known = Object.keys(families) as FamilyName[]
  const modelType = known.find((one) => one === name)
  if (modelType === undefined) {
    const experts = expertsOf(object, name)
    if (experts !== undefined) {
      refuse(
        `model_type "${name}" is a mixture of experts (${experts}), which is not supported (supported: ${known.join(', ')})`,
        'Each token would choose its experts, and so the sizes of products within a block. Name a dense model instead.',
      )
    }
    const near = known.find((one) => leven(one, name) <= 2)
    return refuse(
      `model_type "${name}" is not supported (supported: ${known.join(', ')})`,
      near === undefined ? undefined : `Did you mean "${near}"?`,
    )
  }
  const { quantization } = object
  if (quantization !== undefined && quantization !== null) {
    refuse('"quantization" is what mlx-lm writes beside weights that it quantized, which are not supported', useFloats)
  }
  return families[modelType].describe(object, refuse)
}

/** The text of a config.json, without its promise that the head is the embedding, which its `text_config` may repeat. */
export function untied(text: string): string {
  // Inside of a string the quotes would have backslashes.
  return text.replaceAll(/("tie_word_embeddings"\s*:\s*)true/g, '$1false')
}
