import { join } from 'node:path'
import { isJsonObject, readJsonObject } from '../formats/json.ts'
import { indexName, singleName } from '../formats/safetensors.ts'
import { maxHeaderBytes } from '../formats/safetensors-header.ts'
import { readDecoderConfig } from '../model/config.ts'
import { configName, readAdapterConfig, weightsName } from '../model/peft/adapter.ts'
import { companionFiles } from '../text/tokenizer.ts'
import { LowrankError } from '../util/errors.ts'

/** Which files of a repository are needed. */
export interface Needs {
  readonly what: 'model' | 'adapter'
  /** Small files that it must have, and those that it may have. */
  readonly required: readonly string[]
  readonly optional: readonly string[]
  /** Names that the weights may have, the first that is there counts: themselves, or what names their parts. */
  readonly weights: readonly string[]
  /** Refuses what cannot be used before its weights are downloaded, by the small files in a folder. */
  readonly check: (folder: string) => Promise<unknown>
}

export const modelNeeds: Needs = {
  what: 'model',
  required: ['config.json', 'tokenizer.json'],
  optional: companionFiles.filter((name) => name !== 'tokenizer.json'),
  weights: [singleName, indexName],
  check: readDecoderConfig,
}

export const adapterNeeds: Needs = {
  what: 'adapter',
  required: [configName],
  // How the base was held, where the whole output folder of a run was uploaded.
  optional: ['run.json'],
  weights: [weightsName],
  check: readAdapterConfig,
}

/** The files that an index of weights names, which lie beside it. */
export async function partsOf(folder: string, id: string): Promise<string[]> {
  const path = join(folder, indexName)
  const { weight_map: map } = await readJsonObject(path, { code: 'model', maxBytes: maxHeaderBytes })
  const parts = [...new Set(Object.values(isJsonObject(map) ? map : {}))]
  const wrong = parts.find((part) => typeof part !== 'string' || !/^[\w.-]{1,200}\.safetensors$/.test(part))
  if (parts.length > 0 && wrong === undefined) return parts as string[]
  throw new LowrankError(
    'model',
    `${indexName} of ${id} ${parts.length === 0 ? 'names no file' : `names ${JSON.stringify(wrong).slice(0, 200)}, which is not a file of weights beside it`}`,
  )
}

/** A repository without what is needed, by the names that it has. */
export function lacks(needs: Needs, missing: string, id: string, names: Iterable<string>): LowrankError {
  const all = [...names]
  const [pickle, gguf] = [/\.(bin|pt|pth|pkl|ckpt)$/, /\.gguf$/].map((kind) => all.find((name) => kind.test(name)))
  const isWeights = needs.weights.includes(missing)
  const other = needs.what === 'model' ? configName : 'config.json'
  const hint =
    all.includes(other) && !all.includes(needs.required[0] ?? '')
      ? `It is ${needs.what === 'model' ? 'an adapter: name it as the adapter, and its base model as the model' : 'a model: name it as the model'}.`
      : isWeights && pickle !== undefined
        ? `It has ${pickle}. Pickle files can run code when they are loaded, so they are not read. Look for a revision with safetensors, or load it in Python and save it again.`
        : gguf !== undefined
          ? `It has ${gguf}, which is not read: name the model that it was made from.`
          : missing === 'tokenizer.json'
            ? 'Save the fast tokenizer beside the model in Python (AutoTokenizer, save_pretrained), and name that folder.'
            : undefined
  return new LowrankError(
    'model',
    `${id} has no ${missing}: it cannot be used as ${needs.what === 'model' ? 'a model' : 'an adapter'}`,
    { hint },
  )
}
