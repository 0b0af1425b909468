import { dimValue, type DimValues, type Shape } from '../graph/dims.ts'
import type { Program } from '../graph/program.ts'
import { bf16ToF32, f16ToF32, type FloatDtype } from '../util/dtype.ts'
import { internalError } from '../util/errors.ts'
import { f32Tensor, floats, type Feeds, type HostTensor, type Results, type Runtime } from './runtime.ts'

/** A weight in the format in which it is stored. */
export interface Weight {
  readonly storage: FloatDtype
  readonly shape: readonly number[]
  /** Float32Array for F32, bits in a Uint16Array for F16 and BF16. */
  readonly data: Float32Array | Uint16Array
}

/** Token ids, right padded, and the flat positions whose next token is predicted. */
export interface MicroBatch {
  readonly batch: number
  readonly seq: number
  /** [batch * seq] */
  readonly ids: Int32Array
  /** Flat positions [n] and the tokens [n] that follow them. */
  readonly rows: Int32Array
  readonly targets: Int32Array
}

interface Stage {
  readonly parameters: readonly { readonly port: string; readonly name: string }[]
  readonly dropouts: readonly { readonly port: string; readonly p: number; readonly shape: Shape }[]
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

export interface PipelineOptions {
  readonly runtime: Runtime
  readonly blocks: readonly BlockPrograms[]
  readonly head: HeadPrograms
  readonly weights: ReadonlyMap<string, Weight>
  /** Name of the embedding [vocabulary, hidden], and whether it is trained. */
  readonly embedding: { readonly name: string; readonly trainable: boolean }
  /** cos and sin [positions, headDim / 2] of the first positions. */
  readonly rope: (positions: number) => { readonly cos: Float32Array; readonly sin: Float32Array }
  readonly headDim: number
  /** Parts in which queries go through attention; no sequence may be shorter. */
  readonly attentionParts: number
  /** Most rows that go through the head at once: what a large vocabulary takes is this times its size. */
  readonly headRows: number
}

/**
 * Fills a fresh dropout mask: u8, 1 where an element is kept. `stage` counts blocks, the head comes last; `index` is
 * different for each mask of a stage within a micro-batch.
 */
export type FillMask = (mask: Uint8Array, p: number, stage: number, index: number) => void

/** Sums of gradients by parameter name; `add` is called once for each contribution. */
export interface GradientSink {
  add(name: string, gradient: Float32Array): void
  /** Adds `rows` [n, width] to the rows `indices` [n] of a gradient. */
  addRows(name: string, indices: Int32Array, rows: Float32Array): void
}

/** A decoder as a row of block programs between an embedding and a head, run over one micro-batch at a time. */
export class Pipeline {
  readonly #o: PipelineOptions
  #known: { readonly batch: number; readonly seq: number; readonly feeds: Feeds } | undefined

  constructor(options: PipelineOptions) {
    this.#o = options
  }

  /** Forward and backward: the sum of the losses of all predicted tokens, in nats; its gradients go to `gradients`. */
  async train(batch: MicroBatch, fillMask: FillMask, gradients: GradientSink): Promise<number> {
    const { runtime, blocks, embedding } = this.#o
    const context = this.#contextOf(batch)
    const sizes = { batch: batch.batch, seq: batch.seq, rows: batch.rows.length }
    let x = this.#embed(batch)
    // What backward reads of each block; dropped as soon as it was read, since it is most of the memory of a step.
    const tape: Feeds[] = []
    for (const [i, block] of blocks.entries()) {
      const feeds = { x, ...context, ...this.#masks(block, i, sizes, fillMask) }
      const { y, ...saved } = await runtime.run(block.forward, { ...feeds, ...this.#weights(block) })
      if (block.backward !== undefined) tape[i] = { ...feeds, ...saved }
      x = needed(y)
    }

    const { lossSum, dy: dHidden } = await this.#trainHead(batch.targets, floats(x), fillMask, gradients)
    let dy: HostTensor | undefined = dHidden
    for (let i = blocks.length - 1; i >= 0 && dy !== undefined; i--) {
      const [block, feeds] = [blocks[i], tape.pop()]
      if (block?.backward === undefined || feeds === undefined) break
      const results: Results = await runtime.run(block.backward, { ...feeds, dy, ...this.#weights(block) })
      collect(block, results, gradients)
      dy = results['dx']
    }
    if (embedding.trainable && dy !== undefined) gradients.addRows(embedding.name, batch.ids, floats(dy))
    return lossSum
  }

  /** The sum of losses in nats, and how many predicted tokens have the largest logit. */
  async evaluate(batch: MicroBatch): Promise<{ readonly lossSum: number; readonly correct: number }> {
    const { runtime, head } = this.#o
    const hidden = floats(await this.#hidden(batch))
    let [lossSum, correct] = [0, 0]
    for (const { start, end } of this.#chunks(batch.targets.length)) {
      const targets = batch.targets.subarray(start, end)
      const x = rowsOf(hidden, this.#width, start, end)
      const results = await runtime.run(head.evaluate, { x, targets: idTensor(targets), ...this.#weights(head) })
      lossSum += sum(floats(results['losses']))
      const predicted = needed(results['predicted']).data
      targets.forEach((target, i) => {
        if (Number(predicted[i]) === target) correct++
      })
    }
    return { lossSum, correct }
  }

  /** Logits [vocabulary] of the token that follows `ids`. */
  async nextLogits(ids: Int32Array): Promise<Float32Array> {
    const { runtime, head } = this.#o
    const last = Int32Array.of(ids.length - 1)
    // What follows the last token does not change it.
    const padded = new Int32Array(Math.max(ids.length, this.#o.attentionParts))
    padded.set(ids)
    const x = await this.#hidden({ batch: 1, seq: padded.length, ids: padded, rows: last, targets: last })
    return floats((await runtime.run(head.logits, { x, ...this.#weights(head) }))['logits'])
  }

  get #width(): number {
    return this.#embedding.shape[1] ?? 0
  }

  get #embedding(): Weight {
    return this.#weight(this.#o.embedding.name)
  }

  /** What the last block makes of the positions whose next token is predicted, [rows, hidden]. */
  async #hidden(batch: MicroBatch): Promise<HostTensor> {
    const context = this.#contextOf(batch)
    let x = this.#embed(batch)
    for (const block of this.#o.blocks) {
      x = needed((await this.#o.runtime.run(block.evaluate, { x, ...context, ...this.#weights(block) }))['y'])
    }
    return x
  }

  /** Losses of the predicted tokens [rows] and the gradient of `hidden` [rows, hidden]: only they reach the vocabulary. */
  async #trainHead(
    targets: Int32Array,
    hidden: Float32Array,
    fillMask: FillMask,
    gradients: GradientSink,
  ): Promise<{ readonly lossSum: number; readonly dy: HostTensor | undefined }> {
    const { runtime, head, blocks } = this.#o
    const width = this.#width
    const dHidden = new Float32Array(hidden.length)
    let lossSum = 0
    let reached = false
    for (const [number, { start, end }] of this.#chunks(targets.length).entries()) {
      const fillChunkMask: FillMask = (mask, p, stage, index) =>
        fillMask(mask, p, stage, index + number * head.dropouts.length)
      const results = await runtime.run(head.train, {
        x: rowsOf(hidden, width, start, end),
        targets: idTensor(targets.subarray(start, end)),
        ...this.#masks(head, blocks.length, { rows: end - start }, fillChunkMask),
        ...this.#weights(head),
      })
      lossSum += sum(floats(results['losses']))
      collect(head, results, gradients)
      if (results['dx'] === undefined) continue
      dHidden.set(floats(results['dx']), start * width)
      reached = true
    }
    return { lossSum, dy: reached ? f32Tensor(dHidden, [targets.length, width]) : undefined }
  }

  /** Cuts `rows` rows for the head, into parts of about equal size: a last one of few rows would pay for the whole weight. */
  #chunks(rows: number): { readonly start: number; readonly end: number }[] {
    const size = Math.ceil(rows / Math.ceil(rows / this.#o.headRows))
    return Array.from({ length: Math.ceil(rows / size) }, (_, i) => ({
      start: i * size,
      end: Math.min(rows, (i + 1) * size),
    }))
  }

  /** Rows of the embedding, gathered from the stored format. */
  #embed({ batch, seq, ids }: MicroBatch): HostTensor {
    const { data, storage, shape } = this.#embedding
    const [vocabulary = 0, width = 0] = shape
    const out = new Float32Array(ids.length * width)
    ids.forEach((id, i) => {
      if (id < 0 || id >= vocabulary) throw internalError(`token ${id} is outside the vocabulary of ${vocabulary}`)
      const row = data.subarray(id * width, (id + 1) * width)
      const target = out.subarray(i * width, (i + 1) * width)
      if (row instanceof Float32Array) target.set(row)
      else if (storage === 'BF16') bf16ToF32(row, target)
      else f16ToF32(row, target)
    })
    return f32Tensor(out, [batch, seq, width])
  }

  #contextOf(batch: MicroBatch): Feeds {
    return { ...this.#positions(batch), rows: idTensor(batch.rows) }
  }

  /** Positions and the causal mask. Padding is on the right, where no real token looks. */
  #positions({ batch, seq }: MicroBatch): Feeds {
    if (this.#known?.batch === batch && this.#known.seq === seq) return this.#known.feeds
    const half = this.#o.headDim / 2
    const tables = this.#o.rope(seq)
    const repeat = (table: Float32Array): HostTensor => {
      const out = new Float32Array(batch * seq * half)
      for (let row = 0; row < batch; row++) out.set(table, row * seq * half)
      return f32Tensor(out, [batch, seq, half])
    }
    const feeds = { cos: repeat(tables.cos), sin: repeat(tables.sin), ...attentionFeeds(seq, this.#o.attentionParts) }
    this.#known = { batch, seq, feeds }
    return feeds
  }

  #masks(stage: Stage, index: number, sizes: DimValues, fillMask: FillMask): Feeds {
    const feeds: Record<string, HostTensor> = {}
    stage.dropouts.forEach(({ port, p, shape: dims }, i) => {
      const shape = dims.map((dim) => dimValue(dim, sizes))
      const data = new Uint8Array(shape.reduce((total, size) => total * size, 1))
      fillMask(data, p, index, i)
      feeds[port] = { dtype: 'u8', shape, data }
    })
    return feeds
  }

  #weights(stage: Stage): Feeds {
    const feeds: Record<string, HostTensor> = {}
    for (const { port, name } of stage.parameters) {
      const { data, shape } = this.#weight(name)
      feeds[port] = { dtype: data instanceof Float32Array ? 'f32' : 'u16', shape, data }
    }
    return feeds
  }

  #weight(name: string): Weight {
    const weight = this.#o.weights.get(name)
    if (weight === undefined) throw internalError(`the weight ${name} is not loaded`)
    return weight
  }
}

/** The lowest f32, as transformers masks: minus infinity would make a fully masked row NaN. */
const lowest = -3.4028234663852886e38

/** Lengths and causal masks of the parts in which `seq` queries go through attention. */
function attentionFeeds(seq: number, parts: number): Feeds {
  if (seq < parts) throw internalError(`a sequence of ${seq} cannot be cut into ${parts} parts`)
  const ends = Array.from({ length: parts }, (_, i) => Math.floor(((i + 1) * seq) / parts))
  const feeds: Record<string, HostTensor> = {}
  ends.forEach((keys, i) => {
    const start = ends[i - 1] ?? 0
    const mask = new Float32Array((keys - start) * keys)
    for (let row = start; row < keys; row++) mask.fill(lowest, (row - start) * keys + row + 1, (row - start + 1) * keys)
    feeds[`mask.${i}`] = f32Tensor(mask, [1, 1, 1, keys - start, keys])
    if (i < parts - 1) feeds[`cut.${i}`] = idTensor(Int32Array.of(keys, seq - keys))
  })
  return { ...feeds, sizes: idTensor(Int32Array.from(ends, (end, i) => end - (ends[i - 1] ?? 0))) }
}

function needed<T>(value: T | undefined): T {
  if (value === undefined) throw internalError('a program did not return what it promised')
  return value
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

function idTensor(ids: Int32Array): HostTensor {
  return { dtype: 'i64', shape: [ids.length], data: BigInt64Array.from(ids, BigInt) }
}

function sum(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0)
}
