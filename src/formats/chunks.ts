import { close, fstatSync, open, read, type Stats } from 'node:fs'
import { Socket } from 'node:net'
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

interface ChunkOptions {
  readonly cancelled?: (() => boolean) | undefined
  /** Is told of the bytes of each chunk. */
  readonly onBytes?: ((count: number) => void) | undefined
}

/**
 * The bytes of a file, of a pipe or of standard input (`-`), from the beginning to the end.
 *
 * @throws LowrankError `data`: it cannot be read; `cancelled`.
 */
export async function* readChunks(
  path: string,
  { cancelled = (): boolean => false, onBytes }: ChunkOptions = {},
): AsyncGenerator<Uint8Array> {
  const checkCancelled = (): void => {
    if (cancelled()) throw new LowrankError('cancelled', `cancelled while reading ${inputName(path)}`)
  }
  const { descriptor, isPipe, close } = await openInput(path)
  try {
    for await (const chunk of isPipe ? readPipe(descriptor, checkCancelled) : readFile(descriptor)) {
      checkCancelled()
      onBytes?.(chunk.byteLength)
      yield chunk
    }
  } catch (error) {
    throw error instanceof LowrankError ? error : readError(path, error)
  } finally {
    await close()
  }
}

interface Opened {
  readonly descriptor: number
  readonly isPipe: boolean
  readonly close: () => Promise<void>
}

async function openInput(path: string): Promise<Opened> {
  if (path === standardInput) {
    if (isatty(0)) {
      throw new LowrankError('data', 'standard input (-) is the terminal, not data', {
        hint: 'Lead data into it: COMMAND | lowrank ..., or lowrank ... < FILE',
      })
    }
    return { descriptor: 0, isPipe: isPipe(fstatSync(0)), close: async () => {} }
  }
  await checkPlainFile(path, { code: 'data', hint, orPipe: true })
  const descriptor = await promisify(open)(path, 'r').catch((cause: unknown) => {
    throw readError(path, cause)
  })
  // That of a pipe is closed by who reads it.
  const pipe = isPipe(fstatSync(descriptor))
  return { descriptor, isPipe: pipe, close: async () => (pipe ? undefined : promisify(close)(descriptor)) }
}

function isPipe(stats: Stats): boolean {
  return stats.isFIFO() || stats.isSocket()
}

const readInto = promisify(read)

async function* readFile(descriptor: number): AsyncGenerator<Uint8Array> {
  for (;;) {
    const { bytesRead, buffer } = await readInto(descriptor, new Uint8Array(chunkBytes), 0, chunkBytes, null)
    if (bytesRead === 0) return
    yield buffer.subarray(0, bytesRead)
  }
}

/** Whoever writes into a pipe may take for ever, and a read that waits for that would keep the process from ending. */
async function* readPipe(descriptor: number, checkCancelled: () => void): AsyncGenerator<Uint8Array> {
  const socket = new Socket({ fd: descriptor, readable: true, writable: false })
  const timer = setInterval(() => {
    try {
      checkCancelled()
    } catch (error) {
      socket.destroy(error as Error)
    }
  }, tick)
  try {
    yield* socket as AsyncIterable<Uint8Array>
  } finally {
    clearInterval(timer)
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
