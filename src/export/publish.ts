import { randomUUID } from 'node:crypto'
import { lstat, mkdir, readdir, realpath, rename, rm, rmdir } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { syncFolder, writeError } from '../formats/atomic.ts'
import { takeLock } from '../formats/lock.ts'
import { LowrankError } from '../util/errors.ts'
import type { Exporter } from './exporter.ts'

export interface PublishOptions extends Pick<Exporter, 'makes'> {
  /** What the name of a file has to end with. */
  readonly extension: string | undefined
  /** Where the file or folder is to be. */
  readonly output: string
  /** What is read, by what it is. */
  readonly reads: Readonly<Record<string, string | undefined>>
}

/**
 * Makes a file or folder that appears when it is whole and was checked: `produce` is given a path of its own, beside the output, of the same
 * name. What is there already is never replaced; what a process that was killed has left is removed by the next one.
 *
 * @throws LowrankError `config`: what is in the way; `io`: it cannot be written.
 */
export async function publish<T>(options: PublishOptions, produce: (path: string) => Promise<T>): Promise<T> {
  const { output, makes } = options
  const place = resolve(output)
  const parent = dirname(place)
  await refuseOutput(options)
  const created = await mkdir(parent, { recursive: true }).catch((error: Error) => {
    throw writeError(parent, error)
  })
  const unlock = await takeLock(join(parent, `.${basename(place)}.lock`), `output: another process writes ${output}`)
  const temporary = join(parent, `.${basename(place)}.${randomUUID().slice(0, 8)}.tmp`)
  let done = false
  try {
    await removeUnfinished(place)
    const path = join(temporary, basename(place))
    await mkdir(makes === 'folder' ? path : temporary, { recursive: true })
    const result = await produce(path)
    await syncFolder(makes === 'folder' ? path : temporary)
    await refuseOutput(options)
    // An empty folder that was there.
    if (makes === 'folder') await rmdir(place).catch(() => undefined)
    await rename(path, place)
    await syncFolder(parent)
    done = true
    return result
  } catch (error) {
    throw error instanceof Error && 'syscall' in error ? writeError(output, error) : error
  } finally {
    await rm(temporary, { recursive: true, force: true })
    await unlock()
    if (!done && created !== undefined) await rm(created, { recursive: true, force: true })
  }
}

/**
 * Looks whether an output may be written; to be asked before anything takes long.
 *
 * @throws LowrankError `config`: what is in the way.
 */
export async function refuseOutput({ output, makes, extension, reads }: PublishOptions): Promise<void> {
  const real = (path: string): Promise<string> => realpath(path).catch(() => resolve(path))
  for (const [what, path] of Object.entries(reads)) {
    if (path === undefined || (await real(path)) !== (await real(output))) continue
    throw new LowrankError('config', `output: ${output} is the ${what} itself`, {
      hint: `Choose another path: the ${what} is left as it is.`,
    })
  }
  const found = await lstat(output).catch(() => undefined)
  if (makes === 'file' && found?.isDirectory()) {
    throw new LowrankError('config', `output: ${output} is a folder; a file is written`, {
      hint: `Name a file: ${join(output, `model${extension ?? ''}`)}.`,
    })
  }
  if (extension !== undefined && !output.toLowerCase().endsWith(extension)) {
    throw new LowrankError('config', `output: ${output} does not end with ${extension}`, {
      hint: `By that name programs know what is in the file: ${output}${extension}.`,
    })
  }
  if (found === undefined) return
  const inside = found.isDirectory() ? await readdir(output) : undefined
  if (makes === 'folder' && inside?.length === 0) return
  const what = inside?.[0] === undefined ? 'is there already' : `is not empty (${inside[0]})`
  throw new LowrankError('config', `output: ${output} ${what}`, {
    hint: 'Nothing is replaced: choose another path, or remove what is there.',
  })
}

/** Only whoever has the lock writes under these names. */
async function removeUnfinished(place: string): Promise<void> {
  const [parent, name] = [dirname(place), basename(place)]
  for (const one of await readdir(parent)) {
    const between = one.startsWith(`.${name}.`) && one.endsWith('.tmp') ? one.slice(name.length + 2, -4) : ''
    if (/^[0-9a-f]{8}$/.test(between)) await rm(join(parent, one), { recursive: true, force: true })
  }
}
