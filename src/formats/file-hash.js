// @ts-check
// Hashes files: for `hash.ts`, and as the program of the thread that it starts, which is why it is JavaScript.
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'

/** @typedef {{ readonly paths: readonly string[], readonly names: boolean }} Hashed */

/**
 * SHA-256 of contents, each after the name of its file if `names` says so, as hex. Through one buffer: those of a stream are garbage that, where
 * the machine is busy, is collected late, up to the size of the file.
 *
 * @param {Hashed} files
 */
export async function hashContents({ paths, names }) {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafeSlow(1 << 20)
  for (const path of paths) {
    if (names) hash.update(basename(path)).update('\0')
    const file = await open(path)
    try {
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, null)
        if (bytesRead === 0) break
        hash.update(buffer.subarray(0, bytesRead))
      }
    } finally {
      await file.close()
    }
  }
  return hash.digest('hex')
}

/** @type {{ readonly hashed?: Hashed }} */
const { hashed } = workerData ?? {}
if (hashed !== undefined) parentPort?.postMessage(await hashContents(hashed))
