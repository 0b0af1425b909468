/**
 * Memory for results, taken as from a stack: what was taken after a mark is free again once that mark is returned to. Left to the
 * garbage collector, results pile up until it comes, and each new one costs a page fault for every 4 KB.
 */
export class StackMemory {
  readonly #chunks: ArrayBuffer[] = []
  #top: Mark = { chunk: 0, used: 0 }

  /** Not cleared. Valid until a mark set before is returned to. */
  floats(count: number): Float32Array {
    const { buffer, offset } = this.#take(4 * count)
    return new Float32Array(buffer, offset, count)
  }

  /** Not cleared. Valid until a mark set before is returned to. */
  bytes(count: number): Uint8Array {
    const { buffer, offset } = this.#take(count)
    return new Uint8Array(buffer, offset, count)
  }

  get mark(): Mark {
    return this.#top
  }

  returnTo(mark: Mark): void {
    this.#top = mark
  }

  clear(): void {
    this.#top = { chunk: 0, used: 0 }
  }

  /** As much again as there is: addresses may be as scarce as memory (`ulimit -v`). */
  #nextChunk(): number {
    const all = this.#chunks.reduce((total, { byteLength }) => total + byteLength, 0)
    return Math.min(largestChunk, Math.max(smallestChunk, all))
  }

  #take(bytes: number): { readonly buffer: ArrayBuffer; readonly offset: number } {
    let { chunk, used } = this.#top
    for (;;) {
      const buffer = (this.#chunks[chunk] ??= new ArrayBuffer(Math.max(bytes, this.#nextChunk())))
      if (used + bytes <= buffer.byteLength) {
        this.#top = { chunk, used: used + Math.ceil(bytes / lineBytes) * lineBytes }
        return { buffer, offset: used }
      }
      ;[chunk, used] = [chunk + 1, 0]
    }
  }
}

/** A height of the stack. */
export interface Mark {
  readonly chunk: number
  readonly used: number
}

const [smallestChunk, largestChunk] = [2 ** 22, 2 ** 28]

/** A line of the cache: where kernels like tensors to begin. */
const lineBytes = 64
