import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import type { InferenceSession } from 'onnxruntime-node'
import type { Program } from '../../graph/program.ts'
import { elements } from '../../util/shape.ts'
import { internalError } from '../../util/errors.ts'

/** What the nodes of one type took in the runs that were counted. */
export interface OpProfile {
  readonly op: string
  readonly nodes: number
  readonly seconds: number
  /** Floating point operations of its products; 0 where it is none. */
  readonly flops: number
}

/** What the runs of a program took that were counted. */
export interface ProgramProfile {
  readonly name: string
  readonly runs: number
  /** From the call to its results, copies of what goes in and out included. */
  readonly seconds: number
  /** Of these, within ONNX Runtime. */
  readonly insideSeconds: number
  readonly ops: readonly OpProfile[]
}

interface Watched {
  readonly program: Program
  /** One for each time that it was compiled. */
  readonly sessions: { readonly session: InferenceSession; readonly prefix: string }[]
  seconds: number
  runs: number
  before: number
}

/**
 * Records what the programs of a `Runtime` take, node by node, as ONNX Runtime's profiler writes it to temporary files. Recording takes some
 * microseconds a node. `close` removes the files.
 */
export class RuntimeProfile {
  readonly #folder: string
  readonly #watched = new Map<Program, Watched>()
  #counting = false
  #sessions = 0

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async create(): Promise<RuntimeProfile> {
    return new RuntimeProfile(await mkdtemp(join(tmpdir(), 'lowrank-profile-')))
  }

  /** From now on runs are counted; those before were for warming up. */
  start(): void {
    this.#counting = true
  }

  /** The options of a session that is to be recorded. */
  options(): { readonly enableProfiling: true; readonly profileFilePrefix: string } {
    return { enableProfiling: true, profileFilePrefix: join(this.#folder, `${this.#sessions++}.`) }
  }

  /** Takes note of a session that was made with `options`. */
  opened(
    program: Program,
    session: InferenceSession,
    { profileFilePrefix: prefix }: { profileFilePrefix: string },
  ): void {
    this.#of(program).sessions.push({ session, prefix })
  }

  /** Takes note of a run. */
  ran(program: Program, seconds: number): void {
    const watched = this.#of(program)
    if (!this.#counting) {
      watched.before++
      return
    }
    watched.runs++
    watched.seconds += seconds
  }

  /** What was recorded; ends the recording. Sessions must not have been released. */
  async read(): Promise<readonly ProgramProfile[]> {
    const found: ProgramProfile[] = []
    for (const { program, sessions, seconds, runs, before } of this.#watched.values()) {
      if (runs === 0) continue
      const records: Recorded[][] = []
      for (const { session, prefix } of sessions) {
        session.endProfiling()
        records.push(await this.#runsIn(prefix))
      }
      const counted = records.flat().slice(before)
      if (counted.length !== runs)
        throw internalError(`${counted.length} runs of ${program.name} recorded, not ${runs}`)
      const insideSeconds = counted.reduce((total, one) => total + one.seconds, 0)
      found.push({
        name: program.name,
        runs,
        seconds,
        insideSeconds,
        ops: sumOps(counted.flatMap(({ nodes }) => nodes)),
      })
    }
    return found
  }

  async close(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true })
  }

  #of(program: Program): Watched {
    const known = this.#watched.get(program) ?? { program, sessions: [], seconds: 0, runs: 0, before: 0 }
    this.#watched.set(program, known)
    return known
  }

  async #runsIn(prefix: string): Promise<Recorded[]> {
    const name = (await readdir(this.#folder)).find((file) => join(this.#folder, file).startsWith(prefix))
    if (name === undefined) throw internalError('ONNX Runtime wrote no profile')
    return recordedRuns(eventsSchema.parse(JSON.parse(await readFile(join(this.#folder, name), 'utf8'))))
  }
}

/** Shapes of the tensors a node was given or gave: each an object of one dtype. */
const shapes = z.array(z.record(z.string(), z.array(z.number()))).optional()

const eventsSchema = z.array(
  z.object({
    cat: z.string(),
    name: z.string(),
    /** Microseconds. */
    ts: z.number(),
    dur: z.number(),
    args: z.object({ op_name: z.string().optional(), input_type_shape: shapes, output_type_shape: shapes }).optional(),
  }),
)

type Events = z.output<typeof eventsSchema>

interface Recorded {
  readonly seconds: number
  readonly nodes: readonly OpProfile[]
}

/** The runs in a profile, in their order, each with its nodes. */
function recordedRuns(events: Events): Recorded[] {
  const runs = events.filter(({ name }) => name === 'model_run').toSorted((a, b) => a.ts - b.ts)
  const nodes = events
    .filter(({ cat, name }) => cat === 'Node' && name.endsWith('_kernel_time'))
    .toSorted((a, b) => a.ts - b.ts)
  let next = 0
  return runs.map(({ ts, dur }) => {
    const own: OpProfile[] = []
    while (next < nodes.length && nodes[next]!.ts <= ts + dur) own.push(nodeOf(nodes[next++]!))
    return { seconds: dur / 1e6, nodes: own }
  })
}

function nodeOf({ dur, args = {} }: Events[number]): OpProfile {
  const { op_name: op = '?', input_type_shape: inputs = [], output_type_shape: outputs = [] } = args
  const [x = [], result = []] = [inputs[0], outputs[0]].map((one) => Object.values(one ?? {})[0] ?? [])
  return { op, nodes: 1, seconds: dur / 1e6, flops: isProduct(op) ? productFlops(x, result) : 0 }
}

/** Whether nodes of this type are matrix products. */
export function isProduct(op: string): boolean {
  return /^(Gemm|MatMul|FusedMatMul|MatMulNBits|MatMulBnb4|MatMulInteger|MatMulIntegerToFloat)$/.test(op)
}

/** Of A [.., m, k], or its transpose, times something -> [.., m, n]: 2 m n k for each. */
export function productFlops(a: readonly number[], result: readonly number[]): number {
  // However its two last dimensions lie, they are m and k.
  const [m = 1] = result.slice(-2)
  const [first = 1, second = 1] = a.length < 2 ? [1, ...a] : a.slice(-2)
  // A of more dimensions than two is flattened by a product with one matrix.
  const k = (first * second) / m
  const inner = Number.isInteger(k) ? k : second
  return 2 * elements(result) * inner
}

/** By type, most seconds first. */
export function sumOps(nodes: readonly OpProfile[]): OpProfile[] {
  const ops = new Map<string, OpProfile>()
  for (const { op, nodes: count, seconds, flops } of nodes) {
    const sum = ops.get(op) ?? { op, nodes: 0, seconds: 0, flops: 0 }
    ops.set(op, { op, nodes: sum.nodes + count, seconds: sum.seconds + seconds, flops: sum.flops + flops })
  }
  return [...ops.values()].toSorted((a, b) => b.seconds - a.seconds)
}
