import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { internalError } from '../util/errors.ts'
import { configOf, generationConfigOf } from './gguf/config.ts'
import { GgufFile } from './gguf/file.ts'
import { hasTokenizer, tokenizerConfigOf, tokenizerOf } from './gguf/tokenizer.ts'
import { type JsonObject, readJsonObject } from './json.ts'
import { listModelFolder, readSmallFiles, type SmallFiles } from './model-folder.ts'
import { readText } from './plain-file.ts'

/** The small files of a model wherever it lies: in a folder as the hub has it, or in one GGUF file, which says the same in another way. */
export interface ModelFiles {
  /** The folder or the file, as it was named. */
  readonly path: string
  /** Whether all of it is in one GGUF file. */
  readonly isGguf: boolean
  /** Names of its files, as a folder of the hub has them: `config.json`, ... */
  readonly names: readonly string[]
  /** Where a file is, for messages. */
  readonly where: (name: string) => string
  /** What a file holds. */
  readonly json: (name: string, options?: ReadOptions) => Promise<JsonObject>
  readonly text: (name: string) => Promise<string>
  /** Contents of those of `names` that there are. */
  readonly small: (names: readonly string[]) => Promise<SmallFiles>
}

interface ReadOptions {
  readonly maxBytes?: number
  readonly hint?: string
}

const maxTextBytes = 64 * 2 ** 20

/**
 * Opens a model by its path.
 *
 * @throws LowrankError `model`: there is none, or what there is instead.
 */
export async function openModelFiles(path: string): Promise<ModelFiles> {
  return (await isGgufFile(path)) ? ggufFiles(path) : folderFiles(path)
}

/** Whether a path names a GGUF file, and not a folder. */
export async function isGgufFile(path: string): Promise<boolean> {
  if (!/\.gguf$/i.test(path)) return false
  const found = await stat(path).catch(() => undefined)
  return found !== undefined && !found.isDirectory()
}

async function folderFiles(folder: string): Promise<ModelFiles> {
  const where = (name: string): string => join(folder, name)
  return {
    path: folder,
    isGguf: false,
    names: await listModelFolder(folder),
    where,
    json: (name, options) => readJsonObject(where(name), { code: 'model', ...options }),
    text: (name) => readText(where(name), { code: 'model', maxBytes: maxTextBytes }),
    small: (names) => readSmallFiles(folder, names),
  }
}

/** What is made of a GGUF file instead of each file of a folder. */
const made: Readonly<Record<string, (file: GgufFile) => JsonObject | Promise<JsonObject>>> = {
  'config.json': configOf,
  'generation_config.json': generationConfigOf,
  'tokenizer.json': tokenizerOf,
  'tokenizer_config.json': tokenizerConfigOf,
}

async function ggufFiles(path: string): Promise<ModelFiles> {
  const opened = async <T>(use: (file: GgufFile) => T | Promise<T>): Promise<T> => {
    const file = await GgufFile.open(path)
    try {
      return await use(file)
    } finally {
      await file.close()
    }
  }
  const json = (name: string): Promise<JsonObject> => {
    const make = Object.hasOwn(made, name) ? made[name] : undefined
    if (make === undefined) throw internalError(`${name} of a GGUF file`)
    return opened(make)
  }
  // A tokenizer has hundreds of thousands of lines otherwise.
  const text = async (name: string): Promise<string> =>
    `${JSON.stringify(await json(name), null, name === 'tokenizer.json' ? 0 : 2)}\n`
  const names = await opened((file) =>
    Object.keys(made).filter((name) => hasTokenizer(file) || !name.startsWith('tokenizer')),
  )
  return {
    path,
    isGguf: true,
    names,
    where: (name) => `${path} (as ${name})`,
    json,
    text,
    small: async (wanted) => {
      const files = new Map<string, Uint8Array>()
      for (const name of wanted.filter((one) => names.includes(one))) files.set(name, Buffer.from(await text(name)))
      return { files, leftOut: [] }
    },
  }
}
