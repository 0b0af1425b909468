import { mkdir, readdir, realpath, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { writeError } from '../formats/atomic.ts'
import { unfinishedName } from '../formats/checkpoint.ts'
import { takeLock } from '../formats/lock.ts'
import { LowrankError } from '../util/errors.ts'
import { lockName } from './output-folder.ts'

/** A folder that receives a model, and that no other process writes to meanwhile. */
export interface EmptyFolder {
  /** Lets others write there. */
  release(): Promise<void>
  /** Makes it as it was: empty, or not there. */
  undo(): Promise<void>
}

/**
 * Makes an output folder, which must be empty if it is there; what a process that was killed has left unfinished does not count. `reads`:
 * what is read, by what it is.
 *
 * @throws LowrankError `config`: what is in the way; `io`: it cannot be made.
 */
export async function claimEmptyFolder(
  output: string,
  reads: Readonly<Record<string, string | readonly string[]>>,
): Promise<EmptyFolder> {
  const real = (path: string): Promise<string> => realpath(path).catch(() => resolve(path))
  const to = await real(output)
  for (const [what, paths] of Object.entries(reads)) {
    for (const path of [paths].flat()) {
      if ((await real(path)) !== to) continue
      throw new LowrankError('config', `output: ${output} is the folder of the ${what} itself`, {
        hint: `Choose another folder: the ${what} is left as it is.`,
      })
    }
  }
  const created = await mkdir(output, { recursive: true }).catch((error: Error) => {
    throw writeError(output, error)
  })
  const unlock = await takeLock(join(output, lockName), `output: another process writes to ${output}`)
  const found = (await readdir(output)).find((name) => name !== unfinishedName && name !== lockName)
  if (found !== undefined) {
    await unlock()
    throw new LowrankError('config', `output: the folder ${output} is not empty (${found})`, {
      hint: 'Choose a folder that is empty or not there yet.',
    })
  }
  return {
    release: unlock,
    undo: async () => {
      if (created !== undefined) await rm(created, { recursive: true, force: true })
      else for (const name of await readdir(output)) await rm(join(output, name), { recursive: true, force: true })
    },
  }
}
