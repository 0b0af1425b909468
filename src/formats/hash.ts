import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { basename } from 'node:path'

/** SHA-256 of a file's content, as hex; what `sha256sum` prints. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await addContent(hash, path)
  return hash.digest('hex')
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

async function addContent(hash: Hash, path: string): Promise<void> {
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
}
