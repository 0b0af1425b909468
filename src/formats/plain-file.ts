import { open, readFile, stat } from 'node:fs/promises'
import { type ErrorCode, LowrankError, messageOf } from '../util/errors.ts'

interface PlainFileOptions {
  readonly code: ErrorCode
  /** What to do where the file cannot be read. */
  readonly hint?: string | undefined
  /** Whether it may be a pipe: what is read once, from its beginning to its end. */
  readonly orPipe?: boolean
}

/**
 * Checks that a path, links followed, leads to a file with an end: a device may have none, and opening a pipe waits for whoever writes
 * into it, and that it is the file itself, not what git keeps instead of one that was not fetched. Returns its size in bytes.
 *
 * @throws LowrankError `code`: what there is instead.
 */
export async function checkPlainFile(path: string, { code, hint, orPipe = false }: PlainFileOptions): Promise<number> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new LowrankError(code, `cannot read ${path}: ${messageOf(cause)}`, { cause, hint })
  })
  if (found.isFile()) {
    if (found.size < maxPointerBytes && (await isLfsPointer(path))) throw pointerError(path, code)
    return found.size
  }
  if (orPipe && found.isFIFO()) return found.size
  const kind = found.isDirectory() ? 'a folder' : found.isFIFO() ? 'a pipe' : found.isSocket() ? 'a socket' : 'a device'
  throw new LowrankError(code, `cannot read ${path}: it is ${kind}, not a file`, { hint })
}

/** The text of a file of at most `maxBytes`, in UTF-8. */
export async function readText(
  path: string,
  { maxBytes, ...options }: PlainFileOptions & { readonly maxBytes: number },
): Promise<string> {
  const { code, hint } = options
  const size = await checkPlainFile(path, options)
  if (size > maxBytes) throw new LowrankError(code, `${path}: ${size} bytes, at most ${maxBytes} are accepted`)
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new LowrankError(code, `cannot read ${path}: ${messageOf(cause)}`, { cause, hint })
  })
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new LowrankError(code, `${path}: not valid UTF-8`, { cause, hint: 'It is damaged, or is not a text file.' })
  }
}

/** By the specification of git-lfs a pointer is shorter than this. */
const maxPointerBytes = 1024
const pointerStart = Buffer.from('version https://git-lfs.github.com/spec/')

async function isLfsPointer(path: string): Promise<boolean> {
  const file = await open(path).catch(() => undefined)
  if (file === undefined) return false
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(pointerStart.length), 0, pointerStart.length, 0)
    return bytesRead === pointerStart.length && buffer.equals(pointerStart)
  } finally {
    await file.close()
  }
}

function pointerError(path: string, code: ErrorCode): LowrankError {
  return new LowrankError(code, `${path} is a git-lfs pointer, not the file itself: it was cloned without git-lfs`, {
    hint: 'Run "git lfs install" once and "git lfs pull" in the folder, or download the file by other means.',
  })
}
