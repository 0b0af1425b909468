import { inThread, type Compute } from '../commands/compute.ts'
import { commands } from '../commands/table.ts'
import { closest } from '../config/index.ts'
import { safe, widthOf } from '../terminal/output.ts'
import { isInputError, LowrankError } from '../util/errors.ts'
import { versionOf } from '../util/version.ts'
import { readArguments } from './flags.ts'
import { commandHelp } from './help.ts'
import type { Io, SafeIo } from './io.ts'

/** npx passes the Ctrl-C on that its child has got from the terminal already; no hand is this quick, in ms. */
const SAME_PRESS = 250

/**
 * Runs one command line; `compute`: where tasks run.
 *
 * @returns the exit code: 0 done, 2 bad input or usage, 128 and the number of the signal that cancelled it, 1 anything else.
 */
export async function run(args: readonly string[], outside: Io, compute = inThread): Promise<number> {
  const io: SafeIo = { ...outside, stdout: safe(outside.stdout), stderr: safe(outside.stderr) }
  const controller = new AbortController()
  let interrupted = { code: 130, at: 0 }
  const stopListening = io.onInterrupt(({ code, byHand }) => {
    if (!controller.signal.aborted) {
      interrupted = { code, at: performance.now() }
      controller.abort()
    } else if (byHand && performance.now() - interrupted.at > SAME_PRESS) {
      io.exit(code)
    }
  })
  try {
    await dispatch(args, io, { signal: controller.signal, compute })
    return 0
  } catch (error) {
    // A failure while stopping (a full disk, say) is a failure still.
    const cancelled = error instanceof LowrankError ? error.code === 'cancelled' : isAbort(error, controller.signal)
    io.stderr.write(renderError(error, { debug: io.env['LOWRANK_DEBUG'] === '1', cancelled }))
    return cancelled ? interrupted.code : isInputError(error) ? 2 : 1
  } finally {
    stopListening()
  }
}

async function dispatch(
  args: readonly string[],
  io: SafeIo,
  { signal, compute }: { signal: AbortSignal; compute: Compute },
): Promise<void> {
  const [name, second] = args
  if (name === '--version' || name === '-v') {
    io.stdout.write(`${versionOf('lowrank')}\n`)
    return
  }
  if (name === 'help' && second !== undefined) return dispatch([...args.slice(1), '--help'], io, { signal, compute })
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    ;(name === undefined ? io.stderr : io.stdout).write(mainHelp())
    if (name === undefined) throw new LowrankError('usage', 'no command given')
    return
  }
  const command = commands.find((one) => one.name === `${name} ${second}`) ?? commands.find((one) => one.name === name)
  if (command === undefined) {
    const near = closest(
      name,
      commands.map((one) => one.name),
    )
    const suggestion = near === undefined ? '' : ` Did you mean "${near}"?`
    throw new LowrankError('usage', `unknown command "${name}".${suggestion}`, { hint: 'lowrank --help lists them.' })
  }
  const options = command.options.list()
  const rest = args.slice(command.name.split(' ').length)
  const { help, json, ...given } = readArguments(rest, options, command)
  if (help) {
    io.stdout.write(commandHelp(command, options, Math.min(120, widthOf(io.stdout))))
    return
  }
  try {
    await command.invoke({ ...given, json, stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, signal, compute })
  } catch (error) {
    if (!(error instanceof LowrankError) || error.code !== 'config' || error.hint !== undefined) throw error
    const hint = `lowrank ${command.name} --help lists all options.`
    throw new LowrankError('config', error.message, { hint, cause: error })
  }
}

/** A mistake of the user is reported in words; the stack is for bugs, and for those who ask with LOWRANK_DEBUG=1. */
function renderError(error: unknown, { debug, cancelled }: { debug: boolean; cancelled: boolean }): string {
  const lines: string[] = []
  const known = error instanceof LowrankError
  // Files and sockets fail for reasons of the machine; their messages say what and where.
  const system = error instanceof Error && 'syscall' in error
  const message = error instanceof Error ? error.message : String(error)
  if (cancelled) lines.push(known && error.code === 'cancelled' ? message : 'cancelled')
  else lines.push(`error: ${known || system ? message : `internal: ${message}`}`)
  if (known && error.hint !== undefined) lines.push(`hint: ${error.hint}`)
  const bug = known ? error.code === 'internal' : !system && !cancelled
  if (bug && !known) lines.push('hint: This is a bug in lowrank; please report it.')
  if ((bug || debug) && error instanceof Error) {
    lines.push(error.stack ?? '')
    if (error.cause instanceof Error) lines.push(`cause: ${error.cause.stack}`)
  }
  return `${lines.join('\n')}\n`
}

function isAbort(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && (error === signal.reason || (error instanceof Error && error.name === 'AbortError'))
}

function mainHelp(): string {
  const nameColumn = Math.max(...commands.map((command) => command.name.length)) + 2
  return [
    'Fine-tune language models, with no Python.',
    '',
    'Usage: lowrank COMMAND [flags]',
    '',
    'Commands:',
    ...commands.map((command) => `  ${command.name.padEnd(nameColumn)}${command.summary}`),
    '',
    'lowrank COMMAND --help lists the flags of a command; --version prints the version.',
    '',
  ].join('\n')
}
