import { dimValue, elementCount, type DimValues } from '../graph/dims.ts'
import type { Program } from '../graph/program.ts'
import type { DType } from '../graph/value.ts'
import { attentionParts, treeParts } from '../util/attention.ts'
import { StackMemory } from './memory.ts'
import { type Feeds, type HostTensor, Runtime } from './onnxruntime/runtime.ts'
import { positionFeeds } from './positions.ts'

/** Runs of a program at one size, and seconds after which there are no more than the fewest. */
const [mostTries, fewestTries, patience] = [6, 2, 0.3]

/** Runs programs on made-up tensors to see how long they take on this machine: what they are fed does not change that. */
export class ProgramTimer {
  readonly #runtime: Runtime
  readonly #memory = new StackMemory()

  /** `arenas` as of `Runtime`. */
  constructor(options: { readonly threads: number; readonly arenas: boolean }) {
    this.#runtime = new Runtime(options)
  }

  /**
   * Seconds of one run for each of `sizes`: the least of some, since what else the machine does only adds to them, after one that compiles
   * or makes room.
   */
  async seconds(program: Program, sizes: readonly DimValues[]): Promise<readonly number[]> {
    const found: number[] = []
    for (const one of sizes) {
      const feeds = madeUp(program, one)
      await this.#run(program, feeds)
      const taken: number[] = []
      let left = patience
      while (taken.length < fewestTries || (taken.length < mostTries && left > 0)) {
        const seconds = await this.#run(program, feeds)
        taken.push(seconds)
        left -= seconds
      }
      found.push(Math.min(...taken))
    }
    return found
  }

  async #run(program: Program, feeds: Feeds): Promise<number> {
    this.#memory.clear()
    const begun = performance.now()
    await this.#runtime.run(program, feeds, this.#memory)
    return (performance.now() - begun) / 1000
  }

  async close(): Promise<void> {
    await this.#runtime.close()
  }
}

function madeUp(program: Program, sizes: DimValues): Feeds {
  const { batch, seq } = sizes
  const positions = batch === undefined || seq === undefined ? {} : plainPositions(batch, seq)
  const feeds = program.inputs.map(({ name, value: { type } }): [string, HostTensor] => {
    const shape = type.shape.map((dim) => dimValue(dim, sizes))
    return [name, { dtype: type.dtype, shape, data: made[type.dtype](elementCount(type.shape, sizes)) }]
  })
  return { ...Object.fromEntries(feeds), ...positions }
}

/** Rows of one example each. Kernels read the lengths of the parts of attention, and skip nothing for a mask. */
function plainPositions(batch: number, seq: number): Feeds {
  const starts = Int32Array.from({ length: batch }, (_, i) => i * seq)
  const lengths = new Int32Array(batch).fill(seq)
  return positionFeeds(
    { batch, seq, starts, lengths },
    { rope: undefined, window: undefined },
    { rows: attentionParts, trees: treeParts },
  )
}

/** Ids are 0, which every vocabulary has. All else is written, since pages of zeros take no memory and so no time to read. */
const made = {
  f32: (count: number) => new Float32Array(count).fill(0.01),
  u16: (count: number) => new Uint16Array(count).fill(0x3c00),
  u8: (count: number) => new Uint8Array(count).fill(1),
  i8: (count: number) => new Int8Array(count).fill(1),
  i64: (count: number) => new BigInt64Array(count),
} as const satisfies Record<DType, (count: number) => HostTensor['data']>
