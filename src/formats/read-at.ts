import { openSync, read } from 'node:fs'
import { promisify } from 'node:util'
import { type ErrorCode, LowrankError, messageOf } from '../util/errors.ts'

/** A part of a tensor, in bytes from its start: from `start` up to `end`. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Opens at once, so that a read goes on while this thread computes. */
export function openDescriptor(path: string, code: ErrorCode): number {
  try {
    return openSync(path, 'r')
  } catch (cause) {
    throw new LowrankError(code, `cannot open ${path}: ${messageOf(cause)}`, { cause })
  }
}

/** One read call returns at most 2 GiB. */
const maxRead = 2 ** 30

const readAt = promisify(read)

/**
 * Reads from `offset` on until `bytes` is full. All calls are made at once, so that none waits for this thread, which may be
 * computing; the buffer is left alone once the promise has settled, also by a failure.
 */
export async function fill(
  bytes: Uint8Array,
  descriptor: number,
  path: string,
  code: ErrorCode,
  offset: number,
): Promise<void> {
  const pieces = Array.from({ length: Math.ceil(bytes.byteLength / maxRead) }, async (_, i) => {
    const end = Math.min((i + 1) * maxRead, bytes.byteLength)
    for (let done = i * maxRead; done < end;) {
      const { bytesRead } = await readAt(descriptor, bytes, done, end - done, offset + done).catch((cause: unknown) => {
        throw new LowrankError('io', `cannot read ${path}: ${messageOf(cause)}`, { cause })
      })
      if (bytesRead === 0) throw new LowrankError(code, `${path} ends at byte ${offset + done}: it was cut while open`)
      done += bytesRead
    }
  })
  for (const piece of await Promise.allSettled(pieces)) if (piece.status === 'rejected') throw piece.reason
}
