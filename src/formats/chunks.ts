import { fstat, read } from 'node:fs'
import { open } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { isatty } from 'node:tty'
import { promisify } from 'node:util'
import { LowrankError, messageOf } from '../util/errors.ts'
import { checkPlainFile } from './plain-file.ts'

/** What names standard input in place of a file. */
export const standardInput = '-'

/** How a path is called in messages. */
export function inputName(path: string): string {
  return path === standardInput ? 'standard input' : path
}

/** Bytes that a line, or another record of a text, has at most. */
export const maxRecordBytes = 64 * 2 ** 20

const chunkBytes = 256 * 1024

/** Milliseconds between two looks at whether to go on waiting for a pipe. */
const tick = 100

/**
 * The bytes of a file, of a pipe or of standard input (`-`), from the beginning to the end.
 *
 * @throws LowrankError `data`: it cannot be read; `cancelled`.
 */
export async function* readChunks(
  path: string,
  { cancelled = (): boolean => false }: { readonly cancelled?: (() => boolean) | undefined } = {},
): AsyncGenerator<Uint8Array> {
  const { descriptor, isFile, close } = await openInput(path)
  const checkCancelled = (): void => {
    if (cancelled()) throw new LowrankError('cancelled', `cancelled while reading ${inputName(path)}`)
  }
  let pending: Promise<Uint8Array> | undefined
  try {
    for (;;) {
      checkCancelled()
      pending = readNext(descriptor, path)
      // Whoever writes into a pipe may take for ever.
      while (!isFile && (await Promise.race([pending.then(() => true), sleep(tick, false)])) === false) checkCancelled()
      const chunk: Uint8Array = await pending
      pending = undefined
      if (chunk.byteLength === 0) return
      yield chunk
    }
  } finally {
    const closing = close()
    // A file is closed when no read is under way, and one of a pipe may never end.
    if (pending === undefined) await closing
    else Promise.allSettled([pending, closing]).catch(() => {})
  }
}

interface Input {
  readonly descriptor: number
  readonly isFile: boolean
  readonly close: () => Promise<void>
}

async function openInput(path: string): Promise<Input> {
  if (path === standardInput) {
    if (isatty(0)) {
      throw new LowrankError('data', 'standard input (-) is the terminal, not data', {
        hint: 'Lead data into it: COMMAND | lowrank ..., or lowrank ... < FILE',
      })
    }
    const found = await promisify(fstat)(0).catch((cause: unknown) => {
      throw readError(path, cause)
    })
    return { descriptor: 0, isFile: found.isFile(), close: async () => {} }
  }
  await checkPlainFile(path, { code: 'data', hint, orPipe: true })
  const file = await open(path).catch((cause: unknown) => {
    throw readError(path, cause)
  })
  return { descriptor: file.fd, isFile: (await file.stat()).isFile(), close: () => file.close() }
}

const readInto = promisify(read)

async function readNext(descriptor: number, path: string): Promise<Uint8Array> {
  for (;;) {
    try {
      const { bytesRead, buffer } = await readInto(descriptor, new Uint8Array(chunkBytes), 0, chunkBytes, null)
      return buffer.subarray(0, bytesRead)
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      // Windows says so of a pipe that ends.
      if (code === 'EOF') return new Uint8Array(0)
      // Standard input may be shared with a program that has set it not to wait.
      if (code !== 'EAGAIN') throw readError(path, cause)
      await sleep(tick / 10)
    }
  }
}

/**
 * The bytes of each line, without its line feed. What lies past the limit is not kept in memory.
 */
export async function* splitLines(
  chunks: AsyncIterable<Uint8Array>,
  maxLineBytes: number,
): AsyncGenerator<Uint8Array | 'too long'> {
  let pieces: Uint8Array[] = []
  let length = 0
  const take = (piece: Uint8Array): void => {
    length += piece.byteLength
    if (length > maxLineBytes) pieces = []
    else pieces.push(piece)
  }
  const finish = (): Uint8Array | 'too long' => {
    const line = length > maxLineBytes ? 'too long' : pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
    pieces = []
    length = 0
    return line
  }
  for await (const chunk of chunks) {
    let start = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      take(chunk.subarray(start, end))
      yield finish()
      start = end + 1
    }
    if (start < chunk.byteLength) take(chunk.subarray(start))
  }
  if (length > 0) yield finish()
}

const hint = 'Check the path, relative to the current folder, and that you may read the file.'

function readError(path: string, cause: unknown): LowrankError {
  return new LowrankError('data', `cannot read ${inputName(path)}: ${messageOf(cause)}`, { cause, hint })
}
