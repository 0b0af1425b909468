import { fork, type ChildProcess } from 'node:child_process'
import { Socket } from 'node:net'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { LowrankError, messageOf } from '../../util/errors.ts'
import { checkThreads } from '../../util/limits.ts'
import type { MarkedText } from '../template/turns.ts'
import type { AddedToken } from './check.ts'
import type { Cuts } from './cuts.ts'

/** What the process does. */
export interface Tasks {
  readonly load: {
    readonly input: {
      readonly path: string
      /** What the file of that path would hold, where there is none. */
      readonly text: string | undefined
      readonly added: readonly AddedToken[]
      readonly cuts: Cuts | undefined
    }
    readonly output: void
  }
  /** Ids of each text, one behind the other, without special tokens around it; those of the spans are marked, as in `example.ts`. */
  readonly encode: {
    readonly input: readonly MarkedText[]
    readonly output: { readonly lengths: Int32Array; readonly ids: Int32Array }
  }
  readonly decode: {
    readonly input: { readonly sequences: readonly ArrayLike<number>[]; readonly skipSpecialTokens: boolean }
    readonly output: string[]
  }
  readonly idsOf: { readonly input: readonly string[]; readonly output: (number | undefined)[] }
  readonly tokensOf: { readonly input: readonly number[]; readonly output: (string | undefined)[] }
}

type Input<K extends keyof Tasks> = Tasks[K]['input']
type Output<K extends keyof Tasks> = Tasks[K]['output']

/** What answers each question. */
export type Handlers = { readonly [K in keyof Tasks]: (input: Input<K>) => Promise<Output<K>> }

export interface Question {
  readonly id: number
  readonly task: keyof Tasks
  readonly input: unknown
}

export type Answer = { readonly id: number } & ({ readonly value: unknown } | { readonly error: string })

interface EngineOptions {
  /** A tokenizer.json that was checked. */
  readonly path: string
  /** Makes its text, whenever the process starts, where it is no file by itself. */
  readonly text?: (() => Promise<string>) | undefined
  readonly added: readonly AddedToken[]
  readonly cuts: Cuts | undefined
  /** Asked ten times a second while something is computed. */
  readonly cancelled: () => boolean
}

/**
 * The tokenizer engine in a process of its own, so that whatever a file makes it do, it can be ended, and takes nothing with it. The
 * process starts when something is first asked of it, and again after `close`.
 */
export class Engine {
  readonly #options: EngineOptions
  #running: { readonly process: EngineProcess; readonly loaded: Promise<void> } | undefined

  constructor(options: EngineOptions) {
    this.#options = options
  }

  /**
   * Has a task done. `size`: characters or tokens, which decide how long it may take.
   *
   * @throws LowrankError `model`: the engine refused the input, ended, or took too long; `cancelled`.
   */
  async ask<K extends keyof Tasks>(task: K, input: Input<K>, size: number): Promise<Output<K>> {
    if (this.#running?.process.ended !== false) this.#running = this.#start()
    const { process, loaded } = this.#running
    await loaded
    return process.ask(task, input, size)
  }

  /** Ends the process, and frees what it holds. */
  close(): void {
    this.#running?.process.end(new LowrankError('cancelled', 'the tokenizer was closed'))
    this.#running = undefined
  }

  #start(): { process: EngineProcess; loaded: Promise<void> } {
    const { path, text, added, cuts } = this.#options
    checkThreads('the process that tokenizes', nodeThreads + availableParallelism())
    const process = new EngineProcess(this.#options)
    const load = async (): Promise<void> => process.ask('load', { path, text: await text?.(), added, cuts }, 0)
    const loaded = load().catch((error: unknown) => {
      this.close()
      throw error
    })
    return { process, loaded }
  }
}

/** Threads of a process of Node.js that reads files; the library has one for each core besides. */
const nodeThreads = 12

/** Far more than any text of that size takes. */
const mostSeconds = (size: number): number => 15 + size / 50_000

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: LowrankError) => void
  readonly timer: NodeJS.Timeout
}

class EngineProcess {
  readonly #options: EngineOptions
  readonly #child: ChildProcess
  readonly #pending = new Map<number, Pending>()
  #asked = 0
  #stderr = ''
  #ended: LowrankError | undefined

  constructor(options: EngineOptions) {
    this.#options = options
    this.#child = fork(fileURLToPath(new URL('./engine.js', import.meta.url)), {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      // A Ctrl-C is for this process: it decides what is ended.
      detached: true,
      env: { ...process.env, RUST_BACKTRACE: '0' },
    })
    this.#child.on('message', (answer: Answer) => this.#take(answer))
    this.#child.on('error', (cause) =>
      this.#fail(new LowrankError('io', `cannot start the tokenizer: ${messageOf(cause)}`)),
    )
    this.#child.on('close', () => this.#fail(this.#crash()))
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-8192)
    })
    // A process that waits for questions keeps nothing alive; while it computes, the timer of the question does.
    this.#child.unref()
    this.#child.channel?.unref()
    if (this.#child.stderr instanceof Socket) this.#child.stderr.unref()
  }

  get ended(): boolean {
    return this.#ended !== undefined
  }

  ask<K extends keyof Tasks>(task: K, input: Input<K>, size: number): Promise<Output<K>>
  ask(task: keyof Tasks, input: unknown, size: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended)
      const id = this.#asked++
      const latest = performance.now() + 1000 * mostSeconds(size)
      const watch = (): void => {
        if (this.#options.cancelled()) this.end(new LowrankError('cancelled', 'cancelled while tokenizing'))
        else if (performance.now() > latest) this.end(this.#tooSlow(mostSeconds(size)))
      }
      this.#pending.set(id, { resolve, reject, timer: setInterval(watch, 100) })
      this.#child.send({ id, task, input } satisfies Question)
    })
  }

  end(error: LowrankError): void {
    this.#fail(error)
    // Only a thread that is still there when a process has ended can take it from the system's list, where it would stay otherwise.
    this.#child.ref()
    this.#child.kill('SIGKILL')
  }

  #take(answer: Answer): void {
    const pending = this.#pending.get(answer.id)
    if (pending === undefined) return
    this.#pending.delete(answer.id)
    clearInterval(pending.timer)
    if ('value' in answer) pending.resolve(answer.value)
    else pending.reject(this.#error(answer.error))
  }

  #fail(error: LowrankError): void {
    this.#ended ??= error
    for (const { reject, timer } of this.#pending.values()) {
      clearInterval(timer)
      reject(this.#ended)
    }
    this.#pending.clear()
  }

  #error(problem: string): LowrankError {
    return new LowrankError('model', `${this.#options.path} cannot be used: ${problem}`)
  }

  #tooSlow(seconds: number): LowrankError {
    return new LowrankError(
      'model',
      `${this.#options.path}: the tokenizer has computed for ${Math.round(seconds)} seconds`,
      {
        hint: 'An expression in it may never end on some texts.',
      },
    )
  }

  /** What the library said before it ended the process: `thread ... panicked at FILE:\nMESSAGE\n`. */
  #crash(): LowrankError {
    const said = /panicked at [^\n]*\n([^\n]+)/.exec(this.#stderr)?.[1]
    return this.#error(`the tokenizer engine ended (${said ?? (this.#stderr.trim() || 'it said nothing')})`)
  }
}
