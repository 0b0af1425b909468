import { createHash, type Hash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { checkPlainFile } from './plain-file.ts'

/** SHA-256 of a file's content, as hex; what `sha256sum` prints. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await addContent(hash, path)
  return hash.digest('hex')
}

/** SHA-256 of a text as UTF-8, as hex. */
export function hashText(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** SHA-256 of the files' names and contents, as hex. */
export async function hashFiles(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256')
  for (const path of paths) {
    hash.update(basename(path)).update('\0')
    await addContent(hash, path)
  }
  return hash.digest('hex')
}

/** Through one buffer: those of a stream are garbage that, where the machine is busy, is collected late, up to the size of the file. */
async function addContent(hash: Hash, path: string): Promise<void> {
  await checkPlainFile(path, { code: 'io' })
  const buffer = Buffer.allocUnsafeSlow(1 << 20)
  const file = await open(path)
  try {
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, null)
      if (bytesRead === 0) return
      hash.update(buffer.subarray(0, bytesRead))
    }
  } finally {
    await file.close()
  }
}
