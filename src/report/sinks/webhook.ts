import { basename, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TrainConfig } from '../../config/index.ts'
import type { TrainEvent } from '../../train/events.ts'
import { messageOf } from '../../util/errors.ts'
import type { ErrorEvent, Sink } from './sink.ts'

/** How patient a webhook is; times in milliseconds. */
export interface Patience {
  /** For one request, to the head of its answer. */
  readonly timeout: number
  /** For the rest of the answer. */
  readonly body: number
  /** Waits before the second and the third try. */
  readonly pauses: readonly number[]
  /** For all that is left once the run has ended. */
  readonly flush: number
}

const PATIENCE: Patience = { timeout: 10_000, body: 1000, pauses: [1000, 4000], flush: 10_000 }

/** What waits at most; when the receiver is slower than the run, log lines are left out first. */
const QUEUE_LENGTH = 500

/** Reported by other means, or too many. */
const UNPOSTED: ReadonlySet<string> = new Set(['status', 'data', 'step', 'sample'] satisfies TrainEvent['type'][])

/**
 * Posts events of a run as JSON, `{ run, event }`, one request after another and in order. What cannot be delivered is
 * left out: the run neither waits nor stops, and the first failure of several in a row is reported.
 */
export class Webhook implements Sink {
  readonly #url: string
  readonly #headers: Readonly<Record<string, string>>
  readonly #run: Readonly<Record<string, string>>
  readonly #patience: Patience
  readonly #queue: (TrainEvent | ErrorEvent)[] = []
  readonly #warnings: string[] = []
  readonly #end = new AbortController()
  #sending: Promise<void> | undefined
  #failed = false
  #lost = 0

  constructor({ webhookUrl, outputDir, model, method }: Delivered, patience: Patience = PATIENCE) {
    const url = new URL(webhookUrl)
    // `fetch` refuses a name and password in the address.
    const [name, password] = [url.username, url.password].map(decoded)
    ;[url.username, url.password] = ['', '']
    this.#url = url.href
    const basic = Buffer.from(`${name}:${password}`).toString('base64')
    this.#headers = {
      'content-type': 'application/json',
      ...(name === '' && password === '' ? {} : { authorization: `Basic ${basic}` }),
    }
    this.#run = { name: basename(resolve(outputDir)), outputDir, model, method }
    this.#patience = patience
  }

  event(event: TrainEvent | ErrorEvent): void {
    if (UNPOSTED.has(event.type)) return
    this.#queue.push(event)
    if (this.#queue.length > QUEUE_LENGTH) {
      const log = this.#queue.findIndex(({ type }) => type === 'log')
      this.#queue.splice(Math.max(0, log), 1)
      this.#lost++
    }
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined))
  }

  warnings(): string[] {
    return this.#warnings.splice(0)
  }

  async flush(): Promise<void> {
    const giveUp = setTimeout(() => this.#end.abort(), this.#patience.flush)
    await this.#sending
    clearTimeout(giveUp)
    if (this.#lost > 0) this.#warnings.push(`the webhook missed ${this.#lost} events of this run`)
    this.#lost = 0
  }

  close(): void {
    this.#end.abort()
  }

  async #send(): Promise<void> {
    for (let event = this.#queue.shift(); event !== undefined; event = this.#queue.shift()) {
      const problem = this.#end.signal.aborted ? 'the run has ended' : await this.#deliver(event)
      if (problem === undefined) {
        this.#failed = false
        continue
      }
      this.#lost++
      if (!this.#failed) this.#warnings.push(`the webhook does not accept the events of this run: ${problem}`)
      // Until one goes through again, one try each is enough.
      this.#failed = true
    }
  }

  /** Tries until an event is taken; returns why it was not. */
  async #deliver(event: TrainEvent | ErrorEvent): Promise<string | undefined> {
    const body = JSON.stringify({ run: this.#run, event })
    const pauses = this.#failed ? [] : this.#patience.pauses
    for (let attempt = 0; ; attempt++) {
      const { problem, again } = await this.#post(body)
      const pause = pauses[attempt]
      if (problem === undefined || !again || pause === undefined) return problem
      await sleep(pause, undefined, { signal: this.#end.signal }).catch(() => undefined)
      if (this.#end.signal.aborted) return problem
    }
  }

  async #post(body: string): Promise<{ readonly problem?: string; readonly again: boolean }> {
    const timeout = AbortSignal.timeout(this.#patience.timeout)
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        headers: this.#headers,
        body,
        // Followed, a POST would become a GET, or name and password would go to somebody else.
        redirect: 'manual',
        signal: AbortSignal.any([timeout, this.#end.signal]),
      })
      await drain(response.body, this.#patience.body)
      if (response.ok) return { again: false }
      const again = response.status >= 500 || response.status === 429 || response.status === 408
      return { problem: `it answers ${describe(response)}`, again }
    } catch (error) {
      if (timeout.aborted) return { problem: `no answer within ${this.#patience.timeout / 1000} s`, again: true }
      const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
      return { problem: messageOf(cause), again: true }
    }
  }
}

/** What an answer may have; nothing in it is looked at. */
const ANSWER_BYTES = 64 * 1024

/** Reads a short answer to its end, so that the connection serves the next event too; a long or slow one is left. */
async function drain(body: Response['body'], patience: number): Promise<void> {
  const reader = body?.getReader()
  if (reader === undefined) return
  const leave = (): void => void reader.cancel().catch(() => undefined)
  const slow = setTimeout(leave, patience)
  try {
    let bytes = 0
    for (let part = await reader.read(); !part.done && bytes <= ANSWER_BYTES; part = await reader.read()) {
      bytes += part.value.byteLength
    }
  } catch {
    // The event was taken or refused all the same.
  } finally {
    clearTimeout(slow)
    leave()
  }
}

/** `302 Found, a redirect to https://example.org, which is not followed: give that address`. */
function describe({ status, statusText, headers, url }: Response): string {
  const words = `${status} ${statusText.slice(0, 100)}`.trim()
  const location = headers.get('location')
  if (status < 300 || status >= 400 || location === null) return words
  // The path may be a secret.
  const host = URL.canParse(location, url) ? ` to ${new URL(location, url).origin}` : ''
  return `${words}, a redirect${host}, which is not followed: give that address`
}

/** The text that an address escapes with %; what is no such escape stands for itself. */
function decoded(text: string): string {
  return text.replaceAll(/(?:%[\da-f]{2})+/gi, (escaped) => {
    try {
      return decodeURIComponent(escaped)
    } catch {
      return escaped
    }
  })
}

interface Delivered extends Pick<TrainConfig, 'outputDir' | 'model' | 'method'> {
  readonly webhookUrl: string
}
