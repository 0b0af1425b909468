import type { z } from 'zod'
import { checkCall, type OptionSet, type Source } from '../config/index.ts'
import { type Input, widthOf, type SafeOutput } from '../terminal/output.ts'
import type { LowrankError } from '../util/errors.ts'
import { resultOf, type StatusEvent, type Task } from '../util/task.ts'
import type { Argument } from './argument.ts'
import { inThread, type CallOptions, type Compute, type StatusOptions } from './compute.ts'

/** The options of a call, complete, with its argument under its key. */
type Config<C, K extends string, V> = C & { readonly [key in NoInfer<K>]: NoInfer<V> }

/** What there is to know where a result is shown. */
export interface View<C> {
  readonly config: C
  readonly json: boolean
  /** Columns of the terminal. */
  readonly width: number
  /** Whether it is a terminal, and nobody has asked for none (NO_COLOR). */
  readonly colour: boolean
}

/** What a command is, on the command line and in the API; everything else about it derives from here. */
interface Described<S extends z.ZodObject, C, K extends string, V> {
  /** One word, or two: `runs compare`. */
  readonly name: string
  /** One line, without a full stop. */
  readonly summary: string
  /** What follows the name in the help page: `RUN [flags]`. */
  readonly usage: string
  /** What else there is to say in the help page. */
  readonly notes: string
  /** Whether a YAML file may come before the flags. */
  readonly configFile?: boolean
  /** What comes before the options, if anything does. */
  readonly argument?: Argument<K, V>
  readonly options: OptionSet<S, C>
}

/** A command that comes to one result: its function is `f(argument, options, { signal, onStatus }): Promise<R>`. */
type ResultRecord<S extends z.ZodObject, C, K extends string, V, E extends StatusEvent, R> = Described<S, C, K, V> &
  Work<Config<C, K, V>, E, R> &
  Shown<Config<C, K, V>, R>

type Work<C, E extends StatusEvent, R> =
  | {
      /** What it does, where that needs no more than a moment: in the thread that asks. */
      readonly run: (config: C) => Promise<R>
      readonly load?: never
      readonly silent?: never
    }
  | {
      readonly run?: never
      /** What it does otherwise: a task for the thread that computes, loaded there. */
      readonly load: () => Promise<Task<C, E, R>>
      /** Whether it says nothing while it computes, so that its function takes no `onStatus`. */
      readonly silent?: [E] extends [never] ? true : never
    }

/** What the command line shows. */
interface Shown<C, R> {
  /** What only the command line takes where nothing is given. */
  readonly defaults?: Partial<C>
  /** What it is about to do, in a line. */
  readonly announce?: (config: C) => string
  /** Lines that go with a result, beside it. */
  readonly aside?: (result: R, view: View<C>) => readonly string[]
  /** The result in lines; as JSON unless there is something better. */
  readonly text?: (result: R, view: View<C>) => readonly string[]
  /** Whether these lines have control sequences of their own; whoever makes them writes out all others. */
  readonly styled?: boolean
  /** What `--json` prints; the result unless there is something better. `jsonLines`: several values, one a line. */
  readonly json?: (result: R, view: View<C>) => unknown
  readonly jsonLines?: (result: R) => readonly unknown[]
  /** The error that a result is to the command line, if it is one; after it has been shown. */
  readonly failure?: (result: R) => LowrankError | undefined
}

/** A command that is worth following: its function is `f(argument, options, { signal }): AsyncGenerator<E, R>`. */
interface StreamRecord<S extends z.ZodObject, C, K extends string, V, E, R> extends Described<S, C, K, V> {
  readonly load: () => Promise<Task<Config<C, K, V>, E, R>>
  /** What the calling thread does with the events on their way. */
  readonly around?: (config: Config<C, K, V>, events: AsyncGenerator<E, R>) => AsyncGenerator<E, R>
  /** Draws the events on the command line. */
  readonly draw: (events: AsyncGenerator<E, R>, terminal: Terminal, config: Config<C, K, V>) => Promise<void>
}

/** A command that is talked with: its function is `f(argument, options, { signal, onStatus }): Promise<R>`, which opens what is. */
interface InteractiveRecord<S extends z.ZodObject, C, K extends string, V, R> extends Described<S, C, K, V> {
  readonly open: (config: Config<C, K, V>, call: StatusOptions) => Promise<R>
  /** Talks on the command line, until the input ends. */
  readonly draw: (opened: R, terminal: Terminal, config: Config<C, K, V>) => Promise<void>
}

export interface Terminal {
  /** What is typed, or piped in. */
  readonly stdin: Input
  /** Results only. */
  readonly stdout: SafeOutput
  /** Progress and errors. */
  readonly stderr: SafeOutput
  readonly json: boolean
  readonly signal: AbortSignal
}

/** A command as it was called: its options from file and flags, not yet checked. */
export interface Invocation extends Terminal {
  readonly sources: readonly Source[]
  /** Arguments that are no flags. */
  readonly words: readonly string[]
  readonly compute: Compute
}

/** A command, whatever its types. */
export interface Command {
  readonly name: string
  readonly summary: string
  readonly usage: string
  readonly notes: string
  readonly configFile: boolean
  readonly argument: Argument | undefined
  readonly options: OptionSet<z.ZodObject, unknown>
  /** Its function of the API. */
  readonly api: (...args: never[]) => unknown
  /** Its task, where it computes in a thread of its own. */
  readonly load: (() => Promise<Task<unknown, unknown, unknown>>) | undefined
  /** Runs it as the command line does. */
  invoke(invocation: Invocation): Promise<void>
}

/** The arguments of a function: what comes before the options, these, and what every call takes. */
type Args<S extends z.ZodObject, K, V, Call> = [
  ...argument: [K] extends [never] ? [] : [argument: V],
  ...options: object extends z.input<S> ? [options?: z.input<S>] : [options: z.input<S>],
  call?: Call,
]

const commands: Command[] = []

/** The commands that have been defined, in the order in which they were: see `table.ts`. */
export function definedCommands(): readonly Command[] {
  return commands
}

/** Makes a command of its record, and returns its function of the API. */
export function defineCommand<
  S extends z.ZodObject,
  C,
  R,
  K extends string = never,
  V = never,
  E extends StatusEvent = never,
>(
  record: ResultRecord<S, C, K, V, E, R>,
): (...args: Args<S, K, V, [E] extends [never] ? CallOptions : StatusOptions>) => Promise<R> {
  const { name, run } = record
  const begin = async function* (config: Config<C, K, V>, compute: Compute, options: CallOptions) {
    return run === undefined ? yield* compute<E, R>(name, config, options) : await run(config)
  }
  const api = async (...args: readonly unknown[]): Promise<R> => {
    const [config, call] = readCall(record, args)
    if (run === undefined) checkCall(call, record.silent === true ? ['signal'] : ['signal', 'onStatus'])
    const { signal, onStatus } = call
    return resultOf(begin(config, inThread, { signal }), ({ message }) => onStatus?.(message))
  }
  const invoke = async ({ stdout, stderr, json, signal, compute, ...given }: Invocation): Promise<void> => {
    const config = { ...record.defaults, ...readCommandLine(record, given) }
    const note = (line: string): unknown => stderr.write(`${line}\n`)
    if (record.announce !== undefined) note(record.announce(config))
    const result = await resultOf(begin(config, compute, { signal }), ({ message }) => note(message))
    const colour = stdout.isTTY === true && !process.env['NO_COLOR']
    const view = { config, json, width: widthOf(stdout), colour }
    for (const line of record.aside?.(result, view) ?? []) note(line)
    const values = (): readonly unknown[] =>
      record.jsonLines?.(result) ?? [record.json === undefined ? result : record.json(result, view)]
    const asText = json ? undefined : record.text
    const lines = asText === undefined ? values().map((value) => JSON.stringify(value)) : asText(result, view)
    const output = asText !== undefined && record.styled === true ? stdout.raw : stdout
    if (lines.length > 0) output.write(`${lines.join('\n')}\n`)
    const failure = record.failure?.(result)
    if (failure !== undefined) throw failure
  }
  commands.push(erased(record, { api, invoke }))
  return api
}

/** Makes a command whose events are followed of its record, and returns its function of the API. */
export function defineStream<S extends z.ZodObject, C, E, R, K extends string = never, V = never>(
  record: StreamRecord<S, C, K, V, E, R>,
): (...args: Args<S, K, V, CallOptions>) => AsyncGenerator<E, R> {
  const begin = (config: Config<C, K, V>, compute: Compute, options: CallOptions): AsyncGenerator<E, R> => {
    const events = compute<E, R>(record.name, config, options)
    return record.around === undefined ? events : record.around(config, events)
  }
  const api = async function* (...args: readonly unknown[]): AsyncGenerator<E, R> {
    const [config, call] = readCall(record, args)
    checkCall(call, ['signal'])
    return yield* begin(config, inThread, call)
  }
  const invoke = async ({ compute, sources, words, ...terminal }: Invocation): Promise<void> => {
    const config = readCommandLine(record, { sources, words })
    // A run must not replace the file that it is started with.
    const configFile = sources.find(({ file }) => file !== undefined)?.file
    const given = configFile === undefined ? config : { ...config, configFile }
    await record.draw(begin(given, compute, terminal), terminal, config)
  }
  commands.push(erased(record, { api, invoke }))
  return api
}

/** Makes a command that is talked with of its record, and returns its function of the API. */
export function defineInteractive<S extends z.ZodObject, C, R, K extends string = never, V = never>(
  record: InteractiveRecord<S, C, K, V, R>,
): (...args: Args<S, K, V, StatusOptions>) => Promise<R> {
  const api = async (...args: readonly unknown[]): Promise<R> => {
    const [config, call] = readCall(record, args)
    checkCall(call, ['signal', 'onStatus'])
    return record.open(config, call)
  }
  const invoke = async ({ sources, words, ...terminal }: Invocation): Promise<void> => {
    const config = readCommandLine(record, { sources, words })
    const onStatus = (message: string): unknown => terminal.stderr.write(`${message}\n`)
    const opened = await record.open(config, { signal: terminal.signal, onStatus: (message) => void onStatus(message) })
    await record.draw(opened, terminal, config)
  }
  commands.push(erased(record, { api, invoke }))
  return api
}

/** What a call of the API was given: the configuration, and what every call takes, which is not checked yet. */
function readCall<S extends z.ZodObject, C, K extends string, V>(
  { argument, options }: Described<S, C, K, V>,
  args: readonly unknown[],
): [Config<C, K, V>, StatusOptions] {
  const [given, call = {}] = argument === undefined ? args : args.slice(1)
  const first = argument === undefined ? {} : { [argument.key]: argument.check(args[0]) }
  const needed = options.list().some(({ required }) => required)
  const config = { ...first, ...options.parse(given === undefined && !needed ? {} : given) }
  return [config as Config<C, K, V>, call as StatusOptions]
}

/** What a command line was given. An argument that may be left out has a default. */
function readCommandLine<S extends z.ZodObject, C, K extends string, V>(
  { argument, options }: Described<S, C, K, V>,
  { sources, words }: Pick<Invocation, 'sources' | 'words'>,
): Config<C, K, V> {
  const config = options.read(sources)
  const first =
    argument === undefined || words.length === 0
      ? {}
      : { [argument.key]: argument.check(argument.list ? words : words[0]) }
  return { ...first, ...config } as Config<C, K, V>
}

function erased<S extends z.ZodObject, C, K extends string, V>(
  record: Described<S, C, K, V> & { readonly load?: unknown },
  { api, invoke }: Pick<Command, 'api' | 'invoke'>,
): Command {
  const { name, summary, usage, notes, configFile = false, argument, options } = record
  const load = record.load as Command['load']
  return { name, summary, usage, notes, configFile, argument, options, load, api, invoke }
}
