import { randomUUID } from 'node:crypto'
import { open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { LowrankError } from '../util/errors.ts'

/** Writes bytes into a file that is being made: at `position`, or after the last byte so far. */
type WriteBytes = (bytes: Uint8Array, position?: number) => Promise<void>

/** Writes `data` (text as UTF-8) to `path`: a reader finds the old file or the whole new one, also after a crash. */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  await writeStreamAtomic(path, (write) => write(bytes))
}

/**
 * Like `writeFileAtomic` for a file that is produced piece by piece: a temporary file beside it, fsync, rename. When
 * `produce` or the disk fails, the temporary file is removed, `path` stays as it was, and the error is passed on.
 */
export async function writeStreamAtomic(path: string, produce: (write: WriteBytes) => Promise<void>): Promise<void> {
  const folder = dirname(path)
  const temporary = join(folder, `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`)
  try {
    const file = await open(temporary, 'wx')
    try {
      let end = 0
      await produce(async (bytes, position = end) => {
        // A single write is cut at about 2 GiB by the system, so ask again for the rest.
        for (let done = 0; done < bytes.byteLength;) {
          const length = Math.min(bytes.byteLength - done, maxWrite)
          done += (await file.write(bytes, done, length, position + done)).bytesWritten
        }
        end = Math.max(end, position + bytes.byteLength)
      })
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    await syncFolder(folder)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw error instanceof Error && 'syscall' in error ? writeError(path, error) : error
  }
}

const maxWrite = 2 ** 30

/** The rename itself is on disk only once the folder is. Some systems cannot open folders: then nothing more can be done. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined)
  if (handle === undefined) return
  await handle.sync().catch(() => undefined)
  await handle.close()
}

export const fileInPlaceHint = 'There is a file where a folder is needed: choose another path.'

const notAllowedHint = 'Choose a folder that you may write to.'

const hints: Readonly<Record<string, string>> = {
  ENOSPC: 'The disk is full: free some space, or write to another disk.',
  EACCES: notAllowedHint,
  EPERM: notAllowedHint,
  EROFS: notAllowedHint,
  EEXIST: fileInPlaceHint,
  ENOTDIR: fileInPlaceHint,
}

/** A refusal of the system to write `path`, in words. */
export function writeError(path: string, cause: Error): LowrankError {
  const { code = '' } = cause as NodeJS.ErrnoException
  const hint = code === 'ENOENT' ? `Does the folder ${dirname(path)} exist?` : hints[code]
  return new LowrankError('io', `cannot write ${path}: ${cause.message}`, { cause, hint })
}

/** Removes the temporary files of writers that were killed. */
export async function removeLeftovers(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => /^\..+\.[0-9a-f]{8}\.tmp$/.test(name))
  for (const name of names) await rm(join(folder, name), { force: true })
}
