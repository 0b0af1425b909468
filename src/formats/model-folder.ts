import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, sep } from 'node:path'
import { LowrankError, messageOf } from '../util/errors.ts'
import { checkPlainFile } from './plain-file.ts'

export const modelFolderHint =
  'A model folder holds config.json, *.safetensors and tokenizer.json, as the model hub has it.'

/**
 * Names of the files in a model folder.
 *
 * @throws LowrankError `model`: it is no such folder; says what it seems to be instead.
 */
export async function listModelFolder(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(async (cause: unknown) => {
    throw await notAFolder(folder, cause)
  })
  if (!names.includes('config.json')) {
    await refuseCacheRoot(folder, names)
    refuseAdapter(folder, names)
    refuseGgufs(folder, names)
  }
  return names
}

async function notAFolder(path: string, cause: unknown): Promise<LowrankError> {
  const found = await stat(path).catch(() => undefined)
  if (found?.isFile()) {
    return new LowrankError('model', `${path} is a file; the folder of a model, or a .gguf file, is expected`, {
      cause,
      hint: /\.(safetensors|json)$/.test(path)
        ? `Name the folder that holds it: ${JSON.stringify(dirname(path))}. ${modelFolderHint}`
        : modelFolderHint,
    })
  }
  return new LowrankError('model', `cannot open the folder ${path}: ${messageOf(cause)}`, {
    cause,
    hint: modelFolderHint,
  })
}

/** The cache of the hub keeps each revision of a model in a folder of `snapshots`. */
async function refuseCacheRoot(folder: string, names: readonly string[]): Promise<void> {
  if (!names.includes('snapshots')) return
  const [snapshot] = await readdir(join(folder, 'snapshots')).catch((): string[] => [])
  if (snapshot === undefined) return
  throw new LowrankError('model', `${folder} is a folder of the hub's cache, with the model inside`, {
    hint: `Name the folder of one revision: ${join(folder, 'snapshots', snapshot)}`,
  })
}

function refuseAdapter(folder: string, names: readonly string[]): void {
  if (!names.includes('adapter_config.json')) return
  throw new LowrankError('model', `${folder} is the folder of an adapter; that of its base model is expected`, {
    hint: 'Name the base model as the model, and this folder as the adapter: --model BASE --adapter FOLDER.',
  })
}

function refuseGgufs(folder: string, names: readonly string[]): void {
  const files = names.filter((name) => name.endsWith('.gguf')).map((name) => join(folder, name))
  if (files.length === 0) return
  throw new LowrankError('model', `${folder} has no config.json, but GGUF files: each is a model by itself`, {
    hint: `Name the file: ${files.slice(0, 3).join(' or ')}${files.length > 3 ? ', ...' : ''}`,
  })
}

/** Small files of a model folder, which are written again beside what is made of the model. */
export interface SmallFiles {
  /** Contents by name. */
  readonly files: ReadonlyMap<string, Uint8Array>
  /** What was left out, and why, a sentence each. */
  readonly leftOut: readonly string[]
}

/** Far more than any tokenizer takes. */
const maxSmallFile = 256 * 2 ** 20

/**
 * Reads the files of `names` that a model folder has. A link that leads out of the folder is not followed: what it names was not meant to
 * be passed on with the model. The cache of the hub links to its own `blobs`.
 */
export async function readSmallFiles(folder: string, names: readonly string[]): Promise<SmallFiles> {
  const files = new Map<string, Uint8Array>()
  const leftOut: string[] = []
  const here = await realpath(folder)
  // The cache of the hub has contents in one folder a model, and some in one for all models.
  const isCached = basename(dirname(here)) === 'snapshots'
  const homes = [here, ...(isCached ? [join(here, '../../blobs'), join(here, '../../../blobs')] : [])]
  const present = new Set(await readdir(folder))
  for (const name of names.filter((one) => present.has(one))) {
    const path = join(folder, name)
    const target = await realpath(path).catch(() => undefined)
    if (target === undefined || !homes.some((home) => target.startsWith(home + sep))) {
      leftOut.push(`${path} is a link out of the folder (to ${target ?? 'nowhere'}): it is not copied`)
      continue
    }
    const size = await checkPlainFile(path, { code: 'model' })
    if (size > maxSmallFile) leftOut.push(`${path} has ${size} bytes, more than any file of its kind: it is not copied`)
    else files.set(name, await readFile(path))
  }
  return { files, leftOut }
}
