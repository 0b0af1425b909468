import { type Header, maxHeaderBytes, parseHeader, type TensorInfo } from '../formats/safetensors-header.ts'
import type { TensorReader } from '../formats/safetensors.ts'
import { internalError, LowrankError } from '../util/errors.ts'
import type { HubFile } from './blob.ts'
import { addressOf, type Asked, authorization, hostOf, refusal, retried } from './client.ts'

/** Milliseconds until a part of a file has come. */
const patience = 30_000

/** Bytes of a tensor that are read from the hub at most: what describes a quantized weight is small. */
const mostRead = 2 ** 20

/** Bytes that are asked for at first: most headers are not longer. */
const firstBytes = 2 ** 16

/**
 * The tensors of a checkpoint on the hub, by the headers of its files. `read` asks for what is small, and for nothing else.
 *
 * @throws LowrankError `model`, `io`: a file is no safetensors file, or cannot be asked for.
 */
export async function readHeaders(files: readonly HubFile[], commit: string, asked: Asked): Promise<TensorReader> {
  const tensors = new Map<string, TensorInfo>()
  const urls = new Map<string, string>()
  const headers: Header[] = []
  for (const file of files) {
    const url = `${addressOf(asked)}/resolve/${commit}/${encodeURIComponent(file.name)}`
    const label = `${asked.id}/${file.name}`
    urls.set(label, url)
    const header = await headerOf(label, url, file.size, asked)
    headers.push(header)
    for (const [name, info] of header.tensors) {
      const before = tensors.get(name)
      if (before !== undefined) {
        throw new LowrankError('model', `tensor "${name}" is in ${before.file} and in ${label}`, {
          hint: 'One of the two files does not belong to the model.',
        })
      }
      tensors.set(name, info)
    }
  }
  return {
    tensors,
    metadata: headers[0]?.metadata ?? {},
    read: async (name, _into, range) => {
      const info = tensors.get(name)
      const { start, end } = range ?? { start: 0, end: info?.byteLength ?? 0 }
      if (info === undefined || end - start > mostRead) {
        throw internalError(`${end - start} bytes of tensor ${name} are read from the hub`)
      }
      return part(urls.get(info.file) ?? '', info.offset + start, info.offset + end, detached(asked))
    },
    close: async () => {},
  }
}

/** The same question, when what it was first asked for is over. */
function detached(asked: Asked): Asked {
  return { ...asked, signal: new AbortController().signal }
}

async function headerOf(label: string, url: string, size: number, asked: Asked): Promise<Header> {
  const fail = (what: string): never => {
    throw new LowrankError('model', `${label}: ${what}`, { hint: 'Is it a safetensors file, and complete?' })
  }
  if (size < 8) fail(`${size} bytes are too few for a safetensors file`)
  const first = await part(url, 0, Math.min(size, firstBytes), asked)
  const length = new DataView(first.buffer, first.byteOffset).getBigUint64(0, true)
  if (length > BigInt(Math.min(maxHeaderBytes, size - 8))) {
    fail(`a header of ${length} bytes is announced, the file has ${size}`)
  }
  const end = 8 + Number(length)
  const rest = end > first.byteLength ? await part(url, first.byteLength, end, asked) : new Uint8Array()
  let json = ''
  try {
    json = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
      Buffer.concat([first, rest]).subarray(8, end),
    )
  } catch {
    fail('the header is not valid UTF-8')
  }
  return parseHeader(json, label, size, 'model')
}

/** Bytes of a file from `start` up to `end`. */
async function part(url: string, start: number, end: number, asked: Asked): Promise<Uint8Array<ArrayBuffer>> {
  return retried(asked, async () => {
    const signal = AbortSignal.any([asked.signal, AbortSignal.timeout(patience)])
    const range = { 'accept-encoding': 'identity', range: `bytes=${start}-${end - 1}` }
    const response = await fetch(url, { headers: { ...authorization(asked), ...range }, signal })
    if (!response.ok) throw await refusal(response, asked)
    // A server that knows no ranges sends the file from its beginning.
    const skipped = response.status === 206 ? 0 : start
    if (response.status === 206 && !response.headers.get('content-range')?.startsWith(`bytes ${start}-`)) {
      throw new LowrankError('io', `${hostOf(response.url)} sends another part of ${url} than was asked for`)
    }
    const bytes = new Uint8Array(end - start)
    let at = -skipped
    for await (const piece of (response.body ?? []) as AsyncIterable<Uint8Array>) {
      const own = at < 0 ? piece.subarray(-at) : piece
      const from = Math.max(0, at)
      bytes.set(own.subarray(0, Math.max(0, bytes.length - from)), Math.min(from, bytes.length))
      at += piece.byteLength
      // Leaving the loop ends the download.
      if (at >= bytes.length) return bytes
    }
    throw new Error(`the answer ends after ${at + skipped} bytes`)
  })
}
