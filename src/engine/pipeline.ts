import type { Program } from '../graph/program.ts'
import type { StoredWeight } from '../storage/stored.ts'
import { type Dropouts, type FillMask, masks } from './dropout.ts'
import { embedded, scaled } from './embedding.ts'
import { StackMemory, type Mark } from './memory.ts'
import { isTree, type Positions } from './paths.ts'
import { type AttentionParts, idTensor, type PositionKind } from './positions.ts'
import { PositionCache } from './position-cache.ts'
import {
  f32Tensor,
  floats,
  needed,
  type Feeds,
  type HostTensor,
  type Results,
  type Runtime,
} from './onnxruntime/runtime.ts'
import { WeightFeeds, type FedWeight, type WeightLookup, type WeightStore } from './weights.ts'

/** Token ids, right padded, and the flat positions whose next token is predicted. */
interface MicroBatch extends Positions {
  /** [batch * seq] */
  readonly ids: Int32Array
  /** Flat positions [n] and the tokens [n] that follow them. */
  readonly rows: Int32Array
  readonly targets: Int32Array
}

interface Stage extends Dropouts {
  readonly parameters: readonly FedWeight[]
  readonly gradients: readonly { readonly port: string; readonly name: string }[]
}

interface BlockPrograms extends Stage {
  readonly evaluate: Program
  readonly forward: Program
  readonly backward: Program | undefined
}

interface HeadPrograms extends Stage {
  readonly train: Program
  readonly evaluate: Program
  readonly logits: Program
}

interface PipelineOptions {
  readonly runtime: Runtime
  readonly blocks: readonly BlockPrograms[]
  /** The same blocks for micro-batches whose rows are trees, with the same parameters: made when there is one. */
  readonly treeBlocks: () => readonly BlockPrograms[]
  readonly head: HeadPrograms
  readonly weights: WeightStore
  /** Name of the embedding [vocabulary, hidden], whether it is trained, and by what its rows are multiplied. */
  readonly embedding: { readonly name: string; readonly trainable: boolean; readonly scale: number }
  /** How each block sees positions; blocks of one kind share the object. */
  readonly kinds: readonly PositionKind[]
  readonly attentionParts: AttentionParts
  /** Most rows that go through the head at once: what a large vocabulary takes is this times its size. */
  readonly headRows: number
  /**
   * Micro-batches that go through a block together. More than one pays where blocks are read from disk: each is read once for all of them,
   * while memory grows by what is kept of each.
   */
  readonly group: number
}

/** Adds noise to the embedded tokens `x` [batch * seq * width] of a micro-batch, counted by `micro`. */
export type AddNoise = (x: Float32Array, micro: number) => void

/** What is random in training. */
interface Randomness {
  readonly fillMask: FillMask
  readonly addNoise?: AddNoise | undefined
}

/** A micro-batch on its way through the blocks. */
interface Pass {
  readonly batch: MicroBatch
  readonly micro: number
  readonly blocks: readonly BlockPrograms[]
  /** What each kind of block is fed of its positions. */
  readonly context: (block: number) => Feeds
  x: HostTensor
  dy: HostTensor | undefined
  /** What backward reads of each block; dropped as soon as it was read, since it is most of the memory of a step. */
  readonly tape: (Feeds | undefined)[]
}

/** Sums of gradients by parameter name; `add` is called once for each contribution. */
export interface GradientSink {
  add(name: string, gradient: Float32Array): void
  /** Adds `rows` [n, width] to the rows `indices` [n] of a gradient. */
  addRows(name: string, indices: Int32Array, rows: Float32Array): void
}

/** A decoder as a row of block programs between an embedding and a head, run over micro-batches. */
export class Pipeline {
  readonly #o: PipelineOptions
  readonly #feeds = new WeightFeeds()
  /** What backward reads: taken block by block, given back in reverse. */
  readonly #tape = new StackMemory()
  /** What only the next stage reads: stages take turns. */
  readonly #passing = [new StackMemory(), new StackMemory()] as const
  readonly #positions: PositionCache
  #treeBlocks: readonly BlockPrograms[] | undefined

  constructor(options: PipelineOptions) {
    this.#o = options
    this.#positions = new PositionCache(options.kinds, options.attentionParts)
  }

  /** Micro-batches that are best given to `train` together. */
  get group(): number {
    return this.#o.group
  }

  /** Bytes of blocks read from disk so far. */
  get bytesRead(): number {
    return this.#o.weights.bytesRead
  }

  /**
   * Forward and backward: the losses of the predicted tokens in nats, [rows] of each micro-batch; the gradients of their sum go to
   * `gradients`.
   */
  async train(
    batches: readonly MicroBatch[],
    { fillMask, addNoise }: Randomness,
    gradients: GradientSink,
  ): Promise<readonly Float32Array[]> {
    const { blocks, embedding } = this.#o
    const passes = batches.map((batch, micro): Pass => {
      const [context, x] = [this.#contextOf(batch), this.#embed(batch)]
      addNoise?.(floats(x), micro)
      return { batch, micro, blocks: this.#blocksFor(batch), context, x, dy: undefined, tape: [] }
    })
    this.#tape.clear()
    const heights: Mark[] = []
    for (let i = 0; i < blocks.length; i++) {
      const lookup = await this.#o.weights.block(i, i + 1 < blocks.length ? i + 1 : undefined)
      heights.push(this.#tape.mark)
      this.#passingOf(i).clear()
      for (const pass of passes) await this.#forward(pass.blocks[i]!, i, pass, lookup, fillMask)
    }
    const losses: Float32Array[] = []
    for (const pass of passes) losses.push(await this.#trainHead(pass, fillMask, gradients))
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = blocks[i]
      if (block?.backward === undefined || passes[0]?.dy === undefined) break
      const lookup = await this.#o.weights.block(i, i > 0 && blocks[i - 1]?.backward !== undefined ? i - 1 : 0)
      this.#passingOf(i).clear()
      for (const pass of passes) await this.#backward(pass.blocks[i]!, i, pass, lookup, gradients)
      this.#tape.returnTo(heights[i] ?? this.#tape.mark)
    }
    for (const { batch, dy } of passes) {
      if (!embedding.trainable || dy === undefined) continue
      gradients.addRows(embedding.name, batch.ids, scaled(floats(dy), embedding.scale))
    }
    return losses
  }

  async #forward(block: BlockPrograms, i: number, pass: Pass, lookup: WeightLookup, fill: FillMask): Promise<void> {
    const { batch, micro, context, x } = pass
    // Backward reads the masks of its block, and what the block before made.
    const kept = block.backward !== undefined || this.#o.blocks[i + 1]?.backward !== undefined
    const memory = kept ? this.#tape : this.#passingOf(i)
    const sizes = { batch: batch.batch, seq: batch.seq, rows: batch.rows.length }
    const feeds = { x, ...context(i), ...masks(block, { micro, stage: i, from: 0 }, sizes, fill, memory) }
    const { y, ...saved } = await this.#run(block, block.forward, feeds, lookup, memory)
    if (block.backward !== undefined) pass.tape[i] = { ...feeds, ...saved }
    pass.x = needed(y)
  }

  async #backward(
    block: BlockPrograms,
    i: number,
    pass: Pass,
    lookup: WeightLookup,
    gradients: GradientSink,
  ): Promise<void> {
    const feeds = { ...pass.tape.pop(), dy: needed(pass.dy) }
    const results = await this.#run(block, needed(block.backward), feeds, lookup, this.#passingOf(i))
    collect(block, results, gradients)
    pass.dy = results['dx']
  }

  #blocksFor(batch: MicroBatch): readonly BlockPrograms[] {
    return isTree(batch) ? (this.#treeBlocks ??= this.#o.treeBlocks()) : this.#o.blocks
  }

  #run(
    stage: Stage,
    program: Program,
    feeds: Feeds,
    lookup: WeightLookup,
    memory: StackMemory | undefined,
  ): Promise<Results> {
    return this.#o.runtime.run(program, { ...feeds, ...this.#feeds.of(stage.parameters, program, lookup) }, memory)
  }

  /** Memory for what stage `i` hands to the next: the other one holds what it was handed. */
  #passingOf(i: number): StackMemory {
    return this.#passing[i % 2 === 0 ? 0 : 1]
  }

  /** The losses of the predicted tokens in nats, [rows] of each micro-batch, and how many of all have the largest logit. */
  async evaluate(
    batches: readonly MicroBatch[],
  ): Promise<{ readonly losses: readonly Float32Array[]; readonly correct: number }> {
    const { head, weights } = this.#o
    const losses: Float32Array[] = []
    let correct = 0
    for (const [i, hidden] of (await this.#hidden(batches)).entries()) {
      const all = batches[i]?.targets ?? new Int32Array()
      const ofBatch = new Float32Array(all.length)
      losses.push(ofBatch)
      const memory = this.#passingOf(this.#o.blocks.length)
      for (const { start, end } of this.#chunks(all.length)) {
        memory.clear()
        const targets = all.subarray(start, end)
        const x = rowsOf(floats(hidden), this.#width, start, end)
        const results = await this.#run(
          head,
          head.evaluate,
          { x, targets: idTensor(targets) },
          weights.resident,
          memory,
        )
        ofBatch.set(floats(results['losses']), start)
        const predicted = needed(results['predicted']).data
        targets.forEach((target, row) => {
          if (Number(predicted[row]) === target) correct++
        })
      }
    }
    return { losses, correct }
  }

  /**
   * Logits [n, vocabulary] of the predicted tokens of a micro-batch, as many rows at a time as go through the head together, with the tokens
   * [n] that do follow. Both are valid until `use` returns.
   */
  async logits(batch: MicroBatch, use: (logits: Float32Array, targets: Int32Array) => void): Promise<void> {
    const { head, weights, blocks } = this.#o
    const [hidden] = await this.#hidden([batch])
    const memory = this.#passingOf(blocks.length)
    for (const { start, end } of this.#chunks(batch.targets.length)) {
      memory.clear()
      const x = rowsOf(floats(needed(hidden)), this.#width, start, end)
      const results = await this.#run(head, head.logits, { x }, weights.resident, memory)
      use(floats(results['logits']), batch.targets.subarray(start, end))
    }
  }

  /** Logits [vocabulary] of the token that follows `ids`; undefined once `cancelled` says so, which is asked before each block. */
  async nextLogits(ids: Int32Array): Promise<Float32Array>
  async nextLogits(ids: Int32Array, cancelled: () => boolean): Promise<Float32Array | undefined>
  async nextLogits(ids: Int32Array, cancelled = (): boolean => false): Promise<Float32Array | undefined> {
    const { head, weights } = this.#o
    const last = Int32Array.of(ids.length - 1)
    // What follows the last token does not change it.
    const padded = new Int32Array(Math.max(ids.length, this.#o.attentionParts.rows))
    padded.set(ids)
    const [starts, lengths] = [Int32Array.of(0), Int32Array.of(ids.length)]
    const batch = { batch: 1, seq: padded.length, ids: padded, rows: last, targets: last, starts, lengths }
    const [x] = (await this.#hidden([batch], cancelled)) ?? []
    if (x === undefined) return undefined
    return floats((await this.#run(head, head.logits, { x }, weights.resident, undefined))['logits'])
  }

  get #width(): number {
    return this.#embedding.shape[1] ?? 0
  }

  get #embedding(): StoredWeight {
    return this.#o.weights.resident(this.#o.embedding.name)
  }

  /** What the last block makes of the positions whose next token is predicted, [rows, hidden] of each micro-batch. */
  async #hidden(batches: readonly MicroBatch[]): Promise<HostTensor[]>
  async #hidden(batches: readonly MicroBatch[], cancelled: () => boolean): Promise<HostTensor[] | undefined>
  async #hidden(batches: readonly MicroBatch[], cancelled = (): boolean => false): Promise<HostTensor[] | undefined> {
    const { blocks, weights } = this.#o
    const passes = batches.map((batch) => {
      return { blocks: this.#blocksFor(batch), x: this.#embed(batch), context: this.#contextOf(batch) }
    })
    for (let i = 0; i < blocks.length; i++) {
      if (cancelled()) return undefined
      // After the last block the next evaluation begins with the first.
      const lookup = await weights.block(i, (i + 1) % blocks.length)
      const memory = this.#passingOf(i)
      memory.clear()
      for (const pass of passes) {
        const block = pass.blocks[i]!
        const { y } = await this.#run(block, block.evaluate, { x: pass.x, ...pass.context(i) }, lookup, memory)
        pass.x = needed(y)
      }
    }
    return passes.map((pass) => pass.x)
  }

  /** Losses of the predicted tokens and, as `dy` of the pass, the gradient of what the last block made of them, [rows, hidden]. */
  async #trainHead(pass: Pass, fillMask: FillMask, gradients: GradientSink): Promise<Float32Array> {
    const { head, blocks, weights } = this.#o
    const { targets } = pass.batch
    const width = this.#width
    const hidden = floats(pass.x)
    const dHidden = new Float32Array(hidden.length)
    const losses = new Float32Array(targets.length)
    let reached = false
    const memory = this.#passingOf(blocks.length)
    for (const [number, { start, end }] of this.#chunks(targets.length).entries()) {
      const place = { micro: pass.micro, stage: blocks.length, from: number * head.dropouts.length }
      memory.clear()
      const feeds = {
        x: rowsOf(hidden, width, start, end),
        targets: idTensor(targets.subarray(start, end)),
        ...masks(head, place, { rows: end - start }, fillMask, memory),
      }
      const results = await this.#run(head, head.train, feeds, weights.resident, memory)
      losses.set(floats(results['losses']), start)
      collect(head, results, gradients)
      if (results['dx'] === undefined) continue
      dHidden.set(floats(results['dx']), start * width)
      reached = true
    }
    if (reached) pass.dy = f32Tensor(dHidden, [targets.length, width])
    return losses
  }

  /** Cuts `rows` rows for the head, into parts of about equal size: a last one of few rows would pay for the whole weight. */
  #chunks(rows: number): { readonly start: number; readonly end: number }[] {
    const size = chunkRows(rows, this.#o.headRows)
    return Array.from({ length: Math.ceil(rows / size) }, (_, i) => ({
      start: i * size,
      end: Math.min(rows, (i + 1) * size),
    }))
  }

  #embed({ batch, seq, ids }: MicroBatch): HostTensor {
    return embedded(this.#embedding, ids, { scale: this.#o.embedding.scale, rows: batch, seq })
  }

  #contextOf(batch: MicroBatch): (block: number) => Feeds {
    const rows = idTensor(batch.rows)
    const positions = this.#positions.of(batch)
    return (block) => ({ ...positions(block), rows })
  }
}

function collect(stage: Stage, results: Results, gradients: GradientSink): void {
  for (const { port, name } of stage.gradients) {
    const gradient = results[port]
    if (gradient !== undefined) gradients.add(name, floats(gradient))
  }
}

function rowsOf(from: Float32Array, width: number, start: number, end: number): HostTensor {
  return f32Tensor(from.subarray(start * width, end * width), [end - start, width])
}

/** Rows that go through the head at once, where at most `most` may: chunks are about equal. */
export function chunkRows(rows: number, most: number): number {
  return rows === 0 ? 0 : Math.ceil(rows / Math.ceil(rows / most))
}
