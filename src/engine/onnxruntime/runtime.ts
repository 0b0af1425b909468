import '../../util/telemetry.ts'
import { isMainThread, workerData } from 'node:worker_threads'
import * as ort from 'onnxruntime-node'
import { dimValue, showShape, solveDim, symbolsOf, type DimValues } from '../../graph/dims.ts'
import { toOnnx } from '../../graph/onnx/emit.ts'
import type { Lowerings } from '../../graph/onnx/writer.ts'
import { unsignedProducts } from '../../graph/ops/products.ts'
import type { Program } from '../../graph/program.ts'
import type { DType } from '../../graph/value.ts'
import { bytesOf } from '../../util/dtype.ts'
import { LowrankError, internalError } from '../../util/errors.ts'
import { checkThreads, isOutOfMemory, memoryError, smallerHint, threadsLeft } from '../../util/limits.ts'
import { SharedState } from '../../util/shared-state.ts'
import type { StackMemory } from '../memory.ts'
import { elements } from '../../util/shape.ts'
import type { RuntimeProfile } from './profile.ts'

type TensorData = Float32Array | BigInt64Array | Int8Array | Uint8Array | Uint16Array

/** A tensor in memory, row-major. `bf16` and `f16` are `u16` here. */
export interface HostTensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly data: TensorData
}

export type Feeds = Readonly<Record<string, HostTensor>>
export type Results = Readonly<Record<string, HostTensor>>

export function f32Tensor(data: Float32Array, shape: readonly number[]): HostTensor {
  return { dtype: 'f32', shape, data }
}

/** The f32 elements of a result. */
export function floats(tensor: HostTensor | undefined): Float32Array {
  if (!(tensor?.data instanceof Float32Array)) throw internalError('a result that is not f32')
  return tensor.data
}

/** A result that a program promised. */
export function needed<T>(value: T | undefined): T {
  if (value === undefined) throw internalError('a program did not return what it promised')
  return value
}

export const ortTypes = {
  f32: 'float32',
  i64: 'int64',
  i8: 'int8',
  u8: 'uint8',
  u16: 'uint16',
} as const satisfies Record<DType, string>
export const dtypes: Readonly<Record<string, DType>> = {
  float32: 'f32',
  int64: 'i64',
  int8: 'i8',
  uint8: 'u8',
  uint16: 'u16',
}

/**
 * Runs programs on ONNX Runtime. A program is compiled when it is first run and lives until `close`, or until its threads are needed for
 * another. `run` blocks its thread while it computes.
 */
export class Runtime {
  readonly threads: number
  readonly #arenas: boolean
  readonly #lowerings: Lowerings
  readonly #profile: RuntimeProfile | undefined
  /** Those used last come last. */
  readonly #sessions = new Map<Program, ort.InferenceSession>()
  /** Those that hold constants: they stay, since what they were made of is gone. */
  readonly #fixed = new Map<
    Program,
    { readonly session: ort.InferenceSession; readonly constants: ReadonlySet<string> }
  >()

  /**
   * `arenas`: whether programs keep the memory they have taken for their next run (by default), instead of giving it back. `unsignedIntegers`:
   * whether products of integers are made of unsigned ones, as where only these are exact. `profile`: what records how long programs take.
   *
   * @throws LowrankError `config`: the system does not allow so many threads.
   */
  constructor(options: {
    readonly threads: number
    readonly arenas?: boolean
    readonly unsignedIntegers?: boolean
    readonly profile?: RuntimeProfile | undefined
  }) {
    this.threads = options.threads
    this.#arenas = options.arenas ?? true
    this.#lowerings = options.unsignedIntegers === true ? unsignedProducts : {}
    this.#profile = options.profile
    this.#checkThreads()
  }

  /**
   * Feeds are checked against the program, whose symbols must mean the same in all of them. f32 results are put into `memory`
   * if it is given, and lie there alone; else they are in new memory, which is copied once more.
   */
  async run(program: Program, feeds: Feeds, memory?: StackMemory): Promise<Results> {
    const session = await this.#session(program)
    const begun = performance.now()
    const results = await this.#runIn(session, program, feeds, memory)
    this.#profile?.ran(program, (performance.now() - begun) / 1000)
    return results
  }

  async #runIn(
    session: ort.InferenceSession,
    program: Program,
    feeds: Feeds,
    memory: StackMemory | undefined,
  ): Promise<Results> {
    const tensors: Record<string, ort.Tensor> = {}
    const sizes: Record<string, number> = {}
    const constants = this.#fixed.get(program)?.constants
    const fed = program.inputs.filter(({ name }) => constants?.has(name) !== true)
    for (const { name, value } of fed) {
      const { shape } = feeds[name] ?? {}
      if (shape === undefined) throw internalError(`program ${program.name}: no feed for "${name}"`)
      value.type.shape.forEach((dim, i) => solveDim(dim, shape[i] ?? 0, sizes))
    }
    for (const { name, value } of fed) {
      const feed = feeds[name]!
      checkFeed(program, name, value.type, feed, sizes)
      tensors[name] = new ort.Tensor(ortTypes[feed.dtype], feed.data as Float32Array, feed.shape)
    }
    const places = memory === undefined ? {} : placesOf(program, sizes, memory)
    const allPlaced = program.outputs.every(({ name }) => places[name] !== undefined)
    const fetches = Object.fromEntries(program.outputs.map(({ name }) => [name, places[name] ?? null]))
    let outputs: ort.InferenceSession.OnnxValueMapType = {}
    try {
      outputs = await inNative(() => session.run(tensors, allPlaced ? { [mark]: null, ...fetches } : fetches))
    } catch (cause) {
      if (!allPlaced || !isMark(cause)) throw runError(program, sizes, cause)
    }
    const results: Record<string, HostTensor> = {}
    for (const { name } of program.outputs) {
      const output = places[name] ?? outputs[name]
      const dtype = dtypes[output?.type ?? '']
      if (output === undefined || dtype === undefined)
        throw internalError(`program ${program.name}: no result "${name}"`)
      results[name] = { dtype, shape: output.dims, data: output.data as TensorData }
    }
    return results
  }

  /** Compiles a program before it is run. */
  async prepare(program: Program): Promise<void> {
    await this.#session(program)
  }

  /** Whether a program was compiled with constants. */
  holds(program: Program): boolean {
    return this.#fixed.has(program)
  }

  /**
   * Compiles a program with some of its inputs as constants, which kernels put in the order that suits them; their memory may be used for
   * something else then.
   */
  async fix(program: Program, constants: Feeds): Promise<void> {
    const names = new Set(Object.keys(constants))
    const externalData = Object.entries(constants).map(([path, { data }]) => ({ path, data: bytesOf(data) }))
    const session = await this.#create(
      toOnnx(program, { constants: names, mark, lowerings: this.#lowerings }),
      program.name,
      { externalData },
    )
    this.#fixed.set(program, { session, constants: names })
  }

  /** Frees what a program holds that was compiled with constants. */
  async release(program: Program): Promise<void> {
    const fixed = this.#fixed.get(program)
    this.#fixed.delete(program)
    if (fixed !== undefined) await inNative(() => fixed.session.release())
  }

  async close(): Promise<void> {
    for (const session of this.#sessions.values()) await inNative(() => session.release())
    this.#sessions.clear()
    for (const program of this.#fixed.keys()) await this.release(program)
  }

  async #session(program: Program): Promise<ort.InferenceSession> {
    const fixed = this.#fixed.get(program)
    if (fixed !== undefined) return fixed.session
    const known = this.#sessions.get(program)
    const session = known ?? (await this.#recorded(program))
    this.#sessions.delete(program)
    this.#sessions.set(program, session)
    return session
  }

  async #recorded(program: Program): Promise<ort.InferenceSession> {
    const profile = this.#profile
    const options = profile?.options()
    const session = await this.#create(toOnnx(program, { mark, lowerings: this.#lowerings }), program.name, options)
    if (options !== undefined) profile?.opened(program, session, options)
    return session
  }

  async #create(
    model: Uint8Array,
    name: string,
    more: ort.InferenceSession.SessionOptions = {},
  ): Promise<ort.InferenceSession> {
    await this.#makeRoom()
    try {
      const options: ort.InferenceSession.SessionOptions = {
        executionProviders: ['cpu'],
        intraOpNumThreads: this.threads,
        interOpNumThreads: 1,
        executionMode: 'sequential',
        // The optimizer would merge what is recomputed on purpose, and gains nothing on generated programs.
        graphOptimizationLevel: 'disabled',
        logSeverityLevel: 3,
        // A memory pattern reserves one block for all tensors of a shape, beside the arena: a third more memory on a step of
        // 4 x 256 tokens of a 135M model (1.33 GB, without 0.97 GB), and no faster.
        enableMemPattern: false,
        enableCpuMemArena: this.#arenas,
        // Without this the threads of one session spin after a run and steal the cores from the next session.
        extra: { session: { force_spinning_stop: '1' } },
        ...more,
      }
      return await inNative(() => ort.InferenceSession.create(model, options))
    } catch (cause) {
      if (!isOutOfMemory(cause)) throw cause
      throw memoryError(`while ${name} was made ready`, cause, smallerHint)
    }
  }

  #checkThreads(): void {
    if (this.threads > 1) checkThreads(`computing with ${this.threads} threads`, this.threads - 1 + sparedThreads)
  }

  /**
   * Each session has threads of its own beside the one that calls it (ONNX Runtime shares them in its C API only). They wait at no cost, but
   * count: sessions used longest ago are released where a new one would go beyond `mostThreads` or what the system allows. It takes
   * milliseconds to make one again.
   */
  async #makeRoom(): Promise<void> {
    const own = this.threads - 1
    if (own === 0) return
    const most = Math.max(fewestSessions, Math.floor(mostThreads / own))
    for (;;) {
      const missing = own + sparedThreads > threadsLeft()
      const [oldest] = this.#sessions
      if (!missing && this.#sessions.size < most) return
      if (oldest === undefined) return this.#checkThreads()
      this.#sessions.delete(oldest[0])
      await inNative(() => oldest[1].release())
    }
  }
}

const { state: shared } = (isMainThread ? {} : workerData) as { readonly state?: SharedArrayBuffer }
const state = shared && new SharedState(shared)

/** All calls of ONNX Runtime: a thread of ours is not ended within one. */
export function inNative<T>(call: () => Promise<T>): Promise<T> {
  return state === undefined ? call() : state.inNative(call)
}

/** Threads of all sessions together, but of at least so many sessions: a step of training goes through six, an evaluation through three. */
const [mostThreads, fewestSessions] = [128, 9]

/** Threads that are left to Node.js, which starts some late: for files, and the process that tokenizes. */
const sparedThreads = 8

/**
 * The first result of every program, a sequence, which the binding for Node.js does not hand over. It copies each result that it hands over, one
 * that lies where it was to be put too, into new memory: an eighth of a step. Asked for the mark, a run that has computed everything ends in
 * an error instead, before anything is copied. A binding that hands it over copies, and all is as it would be without.
 */
const mark = 'mark'

function isMark(cause: unknown): boolean {
  return cause instanceof Error && cause.message.startsWith('Non tensor type is temporarily not supported')
}

/** Tensors for the results of a program. */
function placesOf(program: Program, sizes: DimValues, memory: StackMemory): Record<string, ort.Tensor> {
  const places: Record<string, ort.Tensor> = {}
  for (const { name, value } of program.outputs) {
    const shape = value.type.shape.map((dim) => dimValue(dim, sizes))
    const count = elements(shape)
    if (value.type.dtype === 'f32') places[name] = new ort.Tensor('float32', memory.floats(count), shape)
    // Indices are few.
    if (value.type.dtype === 'i64') places[name] = new ort.Tensor('int64', new BigInt64Array(count), shape)
  }
  return places
}

function checkFeed(
  program: Program,
  name: string,
  type: { readonly dtype: DType; readonly shape: readonly (number | string)[] },
  feed: HostTensor,
  sizes: DimValues,
): void {
  const found = `program ${program.name}: "${name}" is ${feed.dtype}${showShape(feed.shape)}`
  if (feed.dtype !== type.dtype || feed.shape.length !== type.shape.length) {
    throw internalError(`${found}, not ${type.dtype}${showShape(type.shape)}`)
  }
  type.shape.forEach((dim, i) => {
    // A product of which no other feed tells a part can be anything.
    if (symbolsOf(dim).some((symbol) => sizes[symbol] === undefined)) return
    if (dimValue(dim, sizes) !== feed.shape[i])
      throw internalError(`${found}, not ${type.dtype}${showShape(type.shape)}`)
  })
  const count = elements(feed.shape)
  if (count !== feed.data.length) throw internalError(`${found} but holds ${feed.data.length} elements`)
}

function runError(program: Program, sizes: DimValues, cause: unknown): LowrankError {
  const message = cause instanceof Error ? cause.message : String(cause)
  // Those that a user knows: not the parts of attention.
  const known = Object.entries(sizes).filter(([name]) => /^[a-z]+$/.test(name))
  const shown = known.map(([name, size]) => `${name} ${size}`)
  if (/alloc|memory/i.test(message)) return memoryError(`in ${program.name} (${shown.join(', ')})`, cause, smallerHint)
  return new LowrankError('internal', `internal: ${program.name} (${shown.join(', ')}): ${message}`, { cause })
}
