import cliProgress from 'cli-progress'
import type { TrainEvent } from '../train/events.ts'
import { printable, wrap } from './format.ts'
import { widthOf, type Output, type SafeOutput } from './output.ts'
import { eventLines, stepText } from './events.ts'

/** Without a terminal, a step is reported at least this often, in seconds, to show that the run lives. */
const HEARTBEAT = 30

/** Draws the events of a run on standard error; `close()` gives the terminal back. */
interface Progress {
  event(event: TrainEvent): void
  /** A line of text among those of the run. */
  line(text: string): void
  close(): void
}

/** A bar with lines above it on a terminal, plain lines elsewhere. */
export function openProgress(output: SafeOutput): Progress {
  return output.isTTY === true ? new BarProgress(output) : new LineProgress(output)
}

class LineProgress implements Progress {
  readonly #output: Output
  readonly #now: () => number
  #lastLine = -Infinity

  constructor(output: Output, now: () => number = () => performance.now() / 1000) {
    this.#output = output
    this.#now = now
  }

  event(event: TrainEvent): void {
    for (const line of eventLines(event)) this.line(line)
    if (event.type !== 'step') return
    if (event.step === 1 || this.#now() - this.#lastLine >= HEARTBEAT) {
      this.line(`step ${event.step}/${event.steps}  ${stepText(event)}`)
    }
  }

  line(text: string): void {
    this.#lastLine = this.#now()
    this.#output.write(`${text}\n`)
  }

  close(): void {}
}

class BarProgress implements Progress {
  readonly #output: Output
  readonly #bars: cliProgress.MultiBar
  #bar: cliProgress.SingleBar | undefined
  #closed = false
  readonly #onExit = (): void => this.close()

  constructor(output: SafeOutput) {
    this.#output = output
    this.#bars = new cliProgress.MultiBar({
      stream: output.raw as unknown as NodeJS.WritableStream,
      format: '{bar} {value}/{total}  {text}',
      barCompleteChar: '\u2588',
      barIncompleteChar: '\u2591',
      barsize: 20,
      hideCursor: true,
      // A line logged above the bar overwrites it.
      forceRedraw: true,
      gracefulExit: false,
    })
    // However the process ends, cursor and line wrapping have to come back.
    process.once('exit', this.#onExit)
  }

  event(event: TrainEvent): void {
    for (const line of eventLines(event)) this.line(line)
    if (event.type !== 'step') return
    const payload = { text: stepText(event) }
    this.#bar ??= this.#bars.create(event.steps, event.step, payload)
    this.#bar.update(event.step, payload)
  }

  line(text: string): void {
    // The bar switches line wrapping off; long lines are broken here.
    for (const line of wrap(printable(text), widthOf(this.#output))) {
      if (this.#bar === undefined) this.#output.write(`${line}\n`)
      else this.#bars.log(`${line}\n`)
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    process.removeListener('exit', this.#onExit)
    if (this.#bar === undefined) return
    // `stop` drops lines that still wait to be drawn.
    this.#bars.update()
    this.#bars.stop()
  }
}
