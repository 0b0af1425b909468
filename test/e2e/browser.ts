import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { pathToFileURL } from 'node:url'
import { createBrotliDecompress } from 'node:zlib'

/** Whether there is a browser for this machine: the one from npm is for Linux on x64. CHROMIUM_PATH names another. */
export const hasBrowser =
  process.env['CHROMIUM_PATH'] !== undefined || (process.platform === 'linux' && process.arch === 'x64')

/** A browser, and a folder of libraries that it takes before those of the system, which may lack them. */
interface Program {
  readonly path: string
  readonly libraries: string | undefined
}

/** The program and the libraries that come with it, unpacked once beside the package they come in. */
async function chromium(): Promise<Program> {
  const given = process.env['CHROMIUM_PATH']
  if (given !== undefined) return { path: given, libraries: undefined }
  const packed = dirname(dirname(dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium'))))
  const bin = join(packed, 'bin')
  const [path, archive] = [join(bin, 'chromium'), join(bin, 'al2023.tar')]
  for (const [from, to] of [
    ['chromium.br', path],
    ['al2023.tar.br', archive],
  ] as const) {
    if (existsSync(to)) continue
    const temporary = `${to}.${process.pid}.tmp`
    const unpacked = createWriteStream(temporary, { mode: 0o755 })
    await pipeline(createReadStream(join(bin, from)), createBrotliDecompress(), unpacked)
    if (to === archive) execFileSync('tar', ['-xf', temporary, '-C', bin])
    renameSync(temporary, to)
  }
  return { path, libraries: join(bin, 'lib') }
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly sessionId?: string
  readonly params?: Record<string, unknown>
  readonly result?: Record<string, unknown>
  readonly error?: { readonly message: string }
}

export interface View {
  readonly width: number
  readonly height: number
  readonly scheme: 'light' | 'dark'
  readonly mobile?: boolean
}

/** Chromium without a window, spoken to by the DevTools protocol over pipes. It reaches no network. */
export class Browser {
  readonly #process: ChildProcess
  readonly #profile: string
  readonly #waiting = new Map<
    number,
    { resolve: (result: Record<string, unknown>) => void; reject: (error: Error) => void }
  >()
  readonly #listeners: ((message: Message) => void)[] = []
  #stderr = ''
  #ids = 0

  private constructor({ path, libraries }: Program) {
    this.#profile = mkdtempSync(join(tmpdir(), 'lowrank-browser-'))
    this.#process = spawn(
      path,
      [
        '--headless',
        // Tests may run as root, whom the sandbox refuses; the pages are our own.
        '--no-sandbox',
        '--no-zygote',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--no-first-run',
        '--host-resolver-rules=MAP * ~NOTFOUND',
        '--hide-scrollbars',
        '--remote-debugging-pipe',
        `--user-data-dir=${this.#profile}`,
      ],
      // The poorest locale, the same everywhere.
      {
        stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'],
        env: { ...process.env, LC_ALL: 'C', ...(libraries === undefined ? {} : { LD_LIBRARY_PATH: libraries }) },
      },
    )
    const [, , stderr, , answers] = this.#process.stdio
    ;(stderr as Readable).setEncoding('utf8').on('data', (text: string) => (this.#stderr += text))
    let rest = ''
    ;(answers as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0')
      rest = messages.pop() ?? ''
      for (const message of messages) this.#receive(JSON.parse(message) as Message)
    })
    this.#process.on('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`Chromium has ended:\n${this.#stderr}`))
    })
  }

  static async launch(): Promise<Browser> {
    const browser = new Browser(await chromium())
    await browser.send('Browser.getVersion')
    return browser
  }

  /** Opens a file in a page of its own. */
  async open(path: string, view: View): Promise<Page> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true })
    const page = new Page(this, String(sessionId))
    await page.load(path, view)
    return page
  }

  async send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.#ids
    const answer = new Promise<Record<string, unknown>>((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    ;(this.#process.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    return await answer
  }

  listen(listener: (message: Message) => void): void {
    this.#listeners.push(listener)
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    await this.send('Browser.close').catch(() => undefined)
    await ended
    rmSync(this.#profile, { recursive: true, force: true })
  }

  #receive(message: Message): void {
    for (const listener of this.#listeners) listener(message)
    const waiting = message.id === undefined ? undefined : this.#waiting.get(message.id)
    if (message.id === undefined || waiting === undefined) return
    this.#waiting.delete(message.id)
    if (message.error === undefined) waiting.resolve(message.result ?? {})
    else waiting.reject(new Error(message.error.message))
  }
}

/** A page with what went wrong on it: errors, refused contents, requests to anywhere but its own file. */
export class Page {
  readonly problems: string[] = []
  readonly #browser: Browser
  readonly #session: string
  #loaded: (() => void) | undefined

  constructor(browser: Browser, session: string) {
    this.#browser = browser
    this.#session = session
    browser.listen(({ method, sessionId, params }) => {
      if (sessionId !== session || method === undefined) return
      if (method === 'Page.loadEventFired') this.#loaded?.()
      const said = method === 'Runtime.consoleAPICalled' && /error|warning/.test(String(params?.['type']))
      if (said || method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded')
        this.problems.push(JSON.stringify(params))
      const { url } = (params?.['request'] ?? {}) as { url?: string }
      if (method === 'Network.requestWillBeSent' && url?.startsWith('file:') !== true)
        this.problems.push(`request: ${url}`)
    })
  }

  async load(path: string, view: View): Promise<void> {
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await this.#send(`${domain}.enable`)
    await this.show(view)
    const loaded = new Promise<void>((resolve) => (this.#loaded = resolve))
    await this.#send('Page.navigate', { url: pathToFileURL(path).href })
    await loaded
    await this.settle()
  }

  async show({ width, height, scheme, mobile = false }: View): Promise<void> {
    await this.#send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] })
    const deviceScaleFactor = mobile ? 2 : 1
    await this.#send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor, mobile })
    await this.settle()
  }

  /** Waits until everything is laid out and painted. */
  async settle(): Promise<void> {
    await this.evaluate(
      'new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))',
    )
  }

  /** The value of an expression, or of its promise; whatever JSON can say. */
  async evaluate<T>(expression: string): Promise<T> {
    const answer = await this.#send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })
    if (answer['exceptionDetails'] !== undefined) throw new Error(JSON.stringify(answer['exceptionDetails']))
    return (answer['result'] as { value: T }).value
  }

  async moveMouse(x: number, y: number): Promise<void> {
    await this.#send('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y })
    await this.settle()
  }

  /** The whole page as a PNG; returns the path. */
  async screenshot(path: string): Promise<string> {
    const { data } = await this.#send('Page.captureScreenshot', { captureBeyondViewport: true })
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, Buffer.from(String(data), 'base64'))
    return path
  }

  async #send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return await this.#browser.send(method, params, this.#session)
  }
}
