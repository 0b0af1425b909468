import type { MemoryChoice } from '../config/index.ts'
import { ProgramTimer } from '../engine/program-timer.ts'
import type { Trainable } from '../engine/trainable.ts'
import { elementCount, type DimValues } from '../graph/dims.ts'
import { productFlops } from '../graph/flops.ts'
import { print, type Program } from '../graph/program.ts'
import { type DecoderStages, stageSizes } from '../model/stages.ts'
import { zeroWeight } from '../storage/zero.ts'
import { widened } from '../storage/formats.ts'
import type { Storage } from '../storage/stored.ts'
import type { BatchSize } from '../text/batches.ts'
import type { OptimizerConfig } from '../train/config.ts'
import { gradientNorm, makeOptimizer } from '../train/optimizer.ts'
import { elements } from '../util/shape.ts'

/** Seconds of a run of a program: some for whatever it computes, and some for each operation of its products. */
interface Rate {
  readonly fixed: number
  readonly perFlop: number
}

/** A program, how often a micro-batch runs it, and which of its results are gradients. */
interface Use {
  readonly program: Program
  readonly times: number
}

/**
 * Elements of the micro-batches that are timed: as many as a run has, since an operation of a longer product takes less time, but no more
 * than make a block take about so many operations, which is tenths of a second, and of a small model no fewer than these.
 */
const [mostPositions, fewestPositions, mostFlops] = [4096, 512, 1e11]

/** The same of a head, whose time is far from proportional to few rows: operations of a run, which a large vocabulary needs for 256 rows. */
const [fewestRows, mostHeadFlops] = [32, 2e11]

/** Elements that the loops of the host are timed with: more than caches hold, as the weights of a model are. */
const hostElements = 2 ** 23

/**
 * How long the steps of runs take on this machine. The most used programs of each choice run on made-up tensors, at two sizes; programs of
 * equal text run once. What is left when the time is over takes the rate of what is most like it.
 */
export class StepTimer {
  readonly #threads: number
  readonly #deadline: number
  readonly #timers = new Map<boolean, ProgramTimer>()
  readonly #rates = new Map<string, Rate>()
  readonly #host = new Map<string, number>()

  /** `seconds`: how long all measurements may take, about. */
  constructor({ threads, seconds }: { readonly threads: number; readonly seconds: number }) {
    this.#threads = threads
    this.#deadline = performance.now() + 1000 * seconds
  }

  /** Seconds of an optimizer step: the mean over `sample`. */
  async stepSeconds(
    stages: DecoderStages,
    choice: MemoryChoice,
    run: { readonly sample: readonly (readonly BatchSize[])[]; readonly config: OptimizerConfig },
  ): Promise<number> {
    const { sample, config } = run
    const sizes = sample.flat()
    const arenas = choice.activations === 'keep'
    const [forward, backward] = (['forward', 'backward'] as const).map((kind) => usesOf(stages, kind))
    const typical = middle(sizes)
    const uses = [...(forward ?? []), ...(backward ?? []), { program: stages.head.train, times: 1 }]
    const rates = new Map<Program, Rate>()
    for (const kind of [forward, backward]) {
      const [most] = (kind ?? []).toSorted((a, b) => b.times - a.times)
      if (most === undefined) continue
      const rate = await this.#rateOf(most.program, blockSizes(typical, most.program), arenas)
      for (const { program } of kind ?? []) rates.set(program, rate)
    }
    const perRow = productFlops(stages.head.train, { rows: fewestRows }) / fewestRows
    const rows = Math.min(choice.headRows, Math.max(fewestRows, Math.floor(mostHeadFlops / perRow)))
    // Whether memory is kept makes no difference to a head, which is three products.
    rates.set(
      stages.head.train,
      await this.#rateOf(stages.head.train, [{ rows: Math.max(1, rows >> 1) }, { rows }], true),
    )

    const host = await this.#hostSeconds(stages, config)
    const known = new Map<string, number>()
    // Rows that share what they begin with are timed as others of their width, whose attention computes more.
    const passSeconds = (size: BatchSize): number => {
      const key = [size.batch, size.seq, size.rows, size.masks].join()
      const before = known.get(key)
      if (before !== undefined) return before
      let total = host.perPass
      for (const { program, times } of uses) {
        const rate = rates.get(program)
        if (rate === undefined) continue
        const isHead = program === stages.head.train
        const chunks = isHead ? Math.ceil(size.rows / choice.headRows) : 1
        const own = isHead ? { rows: size.rows / chunks } : stageSizes({ ...size, trees: false })
        total += times * chunks * (rate.fixed + rate.perFlop * productFlops(program, own))
        if (isHead) total += (chunks - 1) * host.perHeadPass
      }
      known.set(key, total)
      return total
    }
    const passes = sizes.reduce((total, size) => total + passSeconds(size), 0)
    return passes / sample.length + host.perStep
  }

  async close(): Promise<void> {
    for (const timer of this.#timers.values()) await timer.close()
  }

  /** The rate of a program, measured unless one like it was, or the time is over. */
  async #rateOf(program: Program, sizes: readonly [DimValues, DimValues], arenas: boolean): Promise<Rate> {
    // Both kinds of 4 bits are unpacked by the same loop.
    const key = `${arenas} ${print(program).replaceAll('"fp4"', '"nf4"')}`
    const known = this.#rates.get(key)
    if (known !== undefined) return known
    const like = [...this.#rates].filter(([text]) => text.includes(`program ${program.name}\n`)).at(-1)?.[1]
    if (like !== undefined && performance.now() > this.#deadline) return like
    const timer = this.#timers.get(arenas) ?? new ProgramTimer({ threads: this.#threads, arenas })
    this.#timers.set(arenas, timer)
    const [few = 0, many = 0] = await timer.seconds(program, sizes)
    const [fewFlops, manyFlops] = sizes.map((one) => productFlops(program, one)) as [number, number]
    const slope = manyFlops > fewFlops ? Math.max(0, (many - few) / (manyFlops - fewFlops)) : 0
    const fixed = Math.max(0, many - slope * manyFlops)
    const rate = { fixed, perFlop: (many - fixed) / manyFlops }
    this.#rates.set(key, rate)
    return rate
  }

  /** What the host computes itself: sums of gradients, updates, weights that it unpacks. */
  async #hostSeconds(
    stages: DecoderStages,
    config: OptimizerConfig,
  ): Promise<{ readonly perPass: number; readonly perHeadPass: number; readonly perStep: number }> {
    const { blocks, head } = stages
    const counts = new Map<string, number>()
    for (const { parameters } of [...blocks, head]) {
      for (const { name, shape, trainable } of parameters) if (trainable) counts.set(name, elements(shape))
    }
    const trained = [...counts.values()].reduce((total, count) => total + count, 0)
    const ofGradients = (stage: (typeof blocks)[number] | typeof head): number =>
      stage.gradients.reduce((total, { name }) => total + (counts.get(name) ?? 0), 0)
    const add = this.#timed('add', () => {
      const [sum, more] = [new Float32Array(hostElements).fill(1), new Float32Array(hostElements).fill(1)]
      return () => {
        for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + more[i]!
      }
    })
    const update = this.#timed(`update ${config.optim}`, () => {
      const data = new Float32Array(hostElements).fill(1)
      const gradient = new Float32Array(hostElements).fill(1)
      const parameter: Trainable = { name: 'weight', shape: [hostElements], data, gradient }
      const optimizer = makeOptimizer([parameter], config)
      return () => {
        gradientNorm([parameter])
        optimizer.step(1e-5, 1)
      }
    })
    let unpacking = 0
    for (const { forward, backward, parameters } of blocks) {
      for (const program of [forward, backward]) {
        const read = new Set(program?.inputs.map(({ name }) => name))
        for (const { inputs, storage } of parameters) {
          for (const { computed, port, value } of inputs) {
            if (computed === true && read.has(port)) {
              unpacking += elementCount(value.type.shape, {}) * this.#unpack(storage)
            }
          }
        }
      }
    }
    const blockGradients = blocks.reduce((total, block) => total + ofGradients(block), 0)
    const perHeadPass = ofGradients(head) * add
    return { perPass: blockGradients * add + perHeadPass + unpacking, perHeadPass, perStep: trained * update }
  }

  #unpack(storage: Storage): number {
    return this.#timed(`unpack ${JSON.stringify(storage)}`, () => {
      const weight = zeroWeight(storage, [hostElements >> 10, 1024])
      return () => void widened(weight)
    })
  }

  /** Seconds for each of `hostElements` elements; measured once. */
  #timed(key: string, prepare: () => () => void): number {
    const known = this.#host.get(key)
    if (known !== undefined) return known
    const run = prepare()
    const taken = Array.from({ length: 4 }, () => {
      const begun = performance.now()
      run()
      return (performance.now() - begun) / 1000 / hostElements
    })
    const found = Math.min(...taken)
    this.#host.set(key, found)
    return found
  }
}

/** The programs of all blocks, each with the number of blocks that run it. */
function usesOf({ blocks }: DecoderStages, kind: 'forward' | 'backward'): Use[] {
  const times = new Map<Program, number>()
  for (const block of blocks) {
    const program = block[kind]
    if (program !== undefined) times.set(program, (times.get(program) ?? 0) + 1)
  }
  return [...times].map(([program, count]) => ({ program, times: count }))
}

/** The size in the middle of these, by positions. */
function middle(sizes: readonly BatchSize[]): BatchSize {
  const sorted = sizes.toSorted((a, b) => a.batch * a.seq - b.batch * b.seq)
  return sorted[sorted.length >> 1] ?? { batch: 1, seq: 64, rows: 64, masks: 1 }
}

/** Two sizes to time a block at, of which the larger is like the one given, as far as that is not too large. */
function blockSizes({ batch, seq, rows }: BatchSize, block: Program): [DimValues, DimValues] {
  const share = Math.min(1, rows / (batch * seq))
  const size = (n: number, own: number): DimValues =>
    stageSizes({ batch: n, seq: own, rows: Math.max(1, Math.round(n * own * share)) })
  const perPosition = productFlops(block, size(1, fewestPositions)) / fewestPositions
  const most = Math.min(mostPositions, Math.max(fewestPositions, Math.floor(mostFlops / perPosition)))
  const length = Math.min(seq, most)
  const many = Math.min(batch, Math.max(1, Math.floor(most / length)))
  return [many > 1 ? size(1, length) : size(1, Math.max(16, length >> 2)), size(many, length)]
}
