import { createHash } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { internalError } from '../util/errors.ts'
import { hashContents } from './file-hash.js'
import { checkPlainFile } from './plain-file.ts'

/** SHA-256 of files, as hex. */
export interface FileHashing {
  /** Of a file's content: what `sha256sum` prints. */
  readonly file: (path: string) => Promise<string>
  /** Of the files' names and contents. */
  readonly files: (paths: readonly string[]) => Promise<string>
}

/** SHA-256 of a text as UTF-8, as hex. */
export function hashText(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** In the thread that asks. */
const here = hashing(hashContents)

/** SHA-256 of a file's content, as hex; what `sha256sum` prints. */
export const hashFile = (path: string): Promise<string> => here.file(path)

/** SHA-256 of the files' names and contents, as hex. */
export const hashFiles = (paths: readonly string[]): Promise<string> => here.files(paths)

/**
 * Bytes that are hashed by who asks even where threads may: a thread takes 600 MB of addresses, and longer to start (50 ms) than SHA-256 of
 * so many bytes takes (12 ms; AMD EPYC).
 */
const fewBytes = 16e6

/** Threads that hash while the one that asks computes. Those that are not done end with `stop`. */
export function hashingInThreads(): FileHashing & { readonly stop: () => void } {
  const threads = new Set<Worker>()
  const run: HashContents = (hashed, bytes) => {
    if (bytes <= fewBytes) return hashContents(hashed)
    return new Promise((resolve, reject) => {
      const thread = new Worker(new URL('file-hash.js', import.meta.url), { workerData: { hashed } })
      threads.add(thread)
      thread.once('message', resolve)
      thread.once('error', reject)
      thread.once('exit', () => {
        threads.delete(thread)
        reject(internalError('the thread that hashes ended'))
      })
    })
  }
  return {
    ...hashing(run),
    stop: () => {
      for (const thread of threads) void thread.terminate()
    },
  }
}

/** Hashes contents of so many bytes in all. */
type HashContents = (hashed: Parameters<typeof hashContents>[0], bytes: number) => Promise<string>

function hashing(run: HashContents): FileHashing {
  const checked = async (paths: readonly string[], names: boolean): Promise<string> => {
    let bytes = 0
    for (const path of paths) bytes += await checkPlainFile(path, { code: 'io' })
    return run({ paths, names }, bytes)
  }
  return { file: (path) => checked([path], false), files: (paths) => checked(paths, true) }
}
