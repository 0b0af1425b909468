import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { syncFolder } from './atomic.ts'

/** What a folder is called while it is written or removed, and while its successor takes its place. */
const [temporarySuffix, replacedSuffix] = ['.tmp', '.old']

/**
 * Makes a folder that appears whole or not at all: `produce` fills a temporary one, and must put its files on disk itself, as the
 * writers of `atomic.ts` do. A folder already there is replaced; a process killed in between leaves one of the two whole, which
 * `settleFolders` finds.
 */
export async function writeFolderAtomic(folder: string, produce: (temporary: string) => Promise<void>): Promise<void> {
  const [temporary, replaced] = [folder + temporarySuffix, folder + replacedSuffix]
  await rm(temporary, { recursive: true, force: true })
  try {
    await mkdir(temporary, { recursive: true })
    await produce(temporary)
    await syncFolder(temporary)
    if (await exists(folder)) {
      await rm(replaced, { recursive: true, force: true })
      await rename(folder, replaced)
    }
    await rename(temporary, folder)
    await syncFolder(dirname(folder))
  } catch (error) {
    // What went wrong before is what counts.
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined)
    throw error
  }
  await rm(replaced, { recursive: true, force: true })
}

/** Removes a folder so that no half of it can be taken for the whole. */
export async function removeFolderAtomic(folder: string): Promise<void> {
  const temporary = folder + temporarySuffix
  await rm(temporary, { recursive: true, force: true })
  await rename(folder, temporary)
  await rm(temporary, { recursive: true, force: true })
}

/** Ends what killed processes left half done to folders in `parent` whose names `isOurs`. A missing parent has none. */
export async function settleFolders(parent: string, isOurs: (name: string) => boolean): Promise<void> {
  const names = new Set(
    await readdir(parent).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return []
      throw error
    }),
  )
  for (const name of names) {
    if (name.endsWith(temporarySuffix) && isOurs(name.slice(0, -temporarySuffix.length))) {
      await rm(join(parent, name), { recursive: true, force: true })
    }
    const original = name.slice(0, -replacedSuffix.length)
    if (!name.endsWith(replacedSuffix) || !isOurs(original)) continue
    if (names.has(original)) await rm(join(parent, name), { recursive: true, force: true })
    else await rename(join(parent, name), join(parent, original))
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
