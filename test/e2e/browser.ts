import { execFileSync } from 'node:child_process'
import { createReadStream, createWriteStream, existsSync, renameSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { pathToFileURL } from 'node:url'
import { createBrotliDecompress } from 'node:zlib'
import { chromium, type Browser, type Page } from 'playwright-core'

/** Whether there is a browser for this machine: the one from npm is for Linux on x64. CHROMIUM_PATH names another. */
export const hasBrowser =
  process.env['CHROMIUM_PATH'] !== undefined || (process.platform === 'linux' && process.arch === 'x64')

export interface View {
  readonly width: number
  readonly height: number
  readonly scheme: 'light' | 'dark'
  readonly mobile?: boolean
}

/** Chromium without a window. It reaches no network. */
export async function launchBrowser(): Promise<Browser> {
  const { path, libraries } = await program()
  return await chromium.launch({
    executablePath: path,
    // Tests may run as root, whom the sandbox refuses; the pages are our own.
    chromiumSandbox: false,
    args: ['--no-zygote', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND'],
    // The poorest locale, the same everywhere.
    env: { ...process.env, LC_ALL: 'C', ...(libraries === undefined ? {} : { LD_LIBRARY_PATH: libraries }) },
  })
}

/** A page, and what went wrong on it: errors, warnings, requests to anywhere but its own file. */
export interface OpenPage {
  readonly page: Page
  readonly problems: readonly string[]
}

/** Opens a file in a page of its own. */
export async function openPage(browser: Browser, path: string, view: View): Promise<OpenPage> {
  const { width, height, scheme, mobile = false } = view
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    isMobile: mobile,
    deviceScaleFactor: mobile ? 2 : 1,
  })
  const page = await context.newPage()
  const problems: string[] = []
  page.on('console', (message) => {
    if (/error|warning/.test(message.type())) problems.push(message.text())
  })
  page.on('pageerror', (error) => problems.push(String(error)))
  page.on('request', (request) => {
    if (!request.url().startsWith('file:')) problems.push(`request: ${request.url()}`)
  })
  await page.goto(pathToFileURL(path).href)
  await settle(page)
  return { page, problems }
}

/** Gives an open page another size or scheme. */
export async function show(page: Page, { width, height, scheme }: View): Promise<void> {
  await page.emulateMedia({ colorScheme: scheme })
  await page.setViewportSize({ width, height })
  await settle(page)
}

/** Waits until everything is laid out and painted. */
export async function settle(page: Page): Promise<void> {
  await page.evaluate(
    'new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))',
  )
}

/** The browser, and a folder of libraries that it takes before those of the system, which may lack them. */
interface Program {
  readonly path: string
  readonly libraries: string | undefined
}

/** The program and the libraries that come with it, unpacked once beside the package they come in. */
async function program(): Promise<Program> {
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
